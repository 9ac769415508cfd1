"""Model files: card, graph, session, and drift of answers."""
