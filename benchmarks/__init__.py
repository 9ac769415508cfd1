"""Figures about speed, run by hand on a quiet machine (``make bench``); never part of the tests."""
