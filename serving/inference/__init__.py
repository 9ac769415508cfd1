"""Inference, from picture to answer, without gRPC."""
