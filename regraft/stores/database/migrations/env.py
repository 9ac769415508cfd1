"""Alembic's environment: steps run in the caller's transaction."""

from alembic import context

from regraft.stores.database.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
