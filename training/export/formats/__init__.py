"""Formats of ``regraft export --to``, a module each."""
