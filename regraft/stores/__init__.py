"""What lasts: versions, labelled pictures, embeddings, served pictures and retrain jobs."""
