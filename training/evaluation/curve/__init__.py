"""Learning curve: accuracy against the number of labels, and its forecast. No torch."""
