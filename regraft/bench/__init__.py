"""Load on a server, and its latencies."""
