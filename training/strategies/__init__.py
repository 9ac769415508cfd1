"""How a version is made: probe, auto, and what they share."""
