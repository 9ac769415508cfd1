"""What training and serving share, and the front door. No torch, no server."""

import os

# What fails is told by our own errors and log; gRPC's core would add lines of its own to both, of strangers' handshakes
# too. It reads this as it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
