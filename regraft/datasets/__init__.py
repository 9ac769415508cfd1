"""Labelled pictures as people keep them: in folders, or by a list."""
