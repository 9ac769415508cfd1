"""Backbones as a server knows them: stored, timed, addable."""
