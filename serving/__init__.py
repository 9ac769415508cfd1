"""Answers requests. Imports neither torch nor ``training``."""
