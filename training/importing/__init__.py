"""Finished classifiers become versions."""
