"""A picture in, an answer out. Knows nothing of gRPC."""
