"""Retraining of heads, as a process of its own. No torch."""
