"""The server. Imports neither torch nor ``training``."""
