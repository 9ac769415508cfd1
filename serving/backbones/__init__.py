"""Backbones of the store, as a server knows them: its list, their times, what could be added."""
