"""The pages of a training, an evaluation and a look at data."""
