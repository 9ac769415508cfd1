"""Labelled pictures come in, retrain jobs run beside the server."""
