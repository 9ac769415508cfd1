"""RPCs on many labelled pictures: lists, thumbnails, changes."""
