"""Migrations, taken by `regraft.stores.database.schema`."""
