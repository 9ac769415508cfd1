"""RPCs about single versions."""
