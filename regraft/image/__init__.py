"""Image preprocessing: encoded bytes to the crop of a network."""
