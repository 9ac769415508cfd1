"""The Open Inference Protocol, as Triton and KServe speak it."""
