"""Labelled pictures: found, laid out, split, and cropped for training."""
