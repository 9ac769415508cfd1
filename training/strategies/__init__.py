"""Strategies of training: probe, auto, and what they share."""
