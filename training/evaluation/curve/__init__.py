"""Learning curve: accuracy by number of labels, and its forecast.

No torch.
"""
