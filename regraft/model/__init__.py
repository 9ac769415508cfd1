"""The model file: its card, its graph, its session, and whether its answers drift."""
