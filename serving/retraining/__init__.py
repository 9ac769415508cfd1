"""Labelled pictures and retrain jobs beside the requests."""
