"""Many labelled pictures at once: pages of a list, and changes."""
