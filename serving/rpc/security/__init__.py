"""Who may call what: roles, the guard, TLS."""
