"""A version as a file for somewhere else. No torch."""
