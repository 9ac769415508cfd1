"""A look at the next head, as a process of its own.

No torch.
"""
