"""Every backbone with every strategy on the same pictures."""
