"""What training and serving share, and the front door. No torch, no server."""
