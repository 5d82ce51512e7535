"""The store of voices in SQLite or PostgreSQL."""
