"""Plain URLs, for curl, load balancers and clients of other servers."""
