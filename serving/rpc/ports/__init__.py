"""The ports of the server."""
