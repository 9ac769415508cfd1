"""A look at the next head, as a short-lived process of its own. No torch."""
