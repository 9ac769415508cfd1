"""Reasons for answers: like pictures, maps of all, explanations."""
