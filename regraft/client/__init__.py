"""The client of a server, its connection and its uploads."""
