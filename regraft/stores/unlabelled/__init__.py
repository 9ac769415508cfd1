"""Pictures without labels: the pool, and kept requests."""
