"""Makes a head from old and new labels, as a process of its own. No torch."""
