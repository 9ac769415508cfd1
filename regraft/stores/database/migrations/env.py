"""What Alembic runs for every command: the steps, inside the transaction of whoever called."""

from alembic import context

from regraft.stores.database.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
