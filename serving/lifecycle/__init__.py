"""The life of a model on a server: created, deleted, restored, removed."""
