"""Quality of a version and of its data. No torch."""
