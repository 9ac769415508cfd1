"""Calls a server: the client, how it connects, and what it sends."""
