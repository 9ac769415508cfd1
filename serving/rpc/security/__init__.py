"""Security of the ports: roles, guard, TLS."""
