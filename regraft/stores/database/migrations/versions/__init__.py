"""Steps in order of their numbers; released ones never change."""
