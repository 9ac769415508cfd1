"""Protocols of RPCs over HTTP: Connect and gRPC-Web."""
