"""Stores: versions, labelled pictures, embeddings, requests and jobs."""
