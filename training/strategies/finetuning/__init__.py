"""Where torch trains."""
