"""The head: embeddings in, weights out. No torch."""
