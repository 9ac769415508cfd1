"""Model files, pictures, stores and clients, for training and serving alike."""

import os

# What fails is told by our own errors and log; gRPC's core would add lines of its own to both, of strangers' handshakes
# too. It reads this as it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
