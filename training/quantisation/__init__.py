"""Backbones in 8-bit integers, by ONNX Runtime. No torch."""
