"""Tables of the stores, in SQLite or PostgreSQL."""
