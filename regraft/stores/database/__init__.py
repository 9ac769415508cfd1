"""The tables behind the stores: SQLite, or PostgreSQL by URL."""
