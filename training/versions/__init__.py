"""A version: published, read, compared, verified. No torch."""
