"""What a version is worth, and what its data show. No torch."""
