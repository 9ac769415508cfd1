"""Labelled pictures in folders and lists."""
