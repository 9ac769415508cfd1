"""The life of a model: begun, published, deleted, restored, purged."""
