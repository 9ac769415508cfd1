"""The edge: messages to calls, errors to status codes, a port."""
