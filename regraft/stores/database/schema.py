"""The version of a database's tables, and how an older database gets today's.

A step is a module in `regraft.stores.database.migrations.versions`; `SCHEMA` names the last one, so that a database
that has it is told without Alembic, which takes a third of a second to import.
"""

from typing import Final

from sqlalchemy import Connection, inspect, text

from regraft.errors import StorageError

SCHEMA: Final = "0007"
_UNVERSIONED: Final = "0001"
"""What a database has that was made before its schema had a version."""


def is_up_to_date(connection: Connection) -> bool:
    """Tell whether a database lacks no step."""
    return inspect(connection).has_table("alembic_version") and _version_of(connection) == SCHEMA


def bring_up_to_date(connection: Connection) -> None:
    """Take the steps that a database lacks, all of them or none, in the caller's transaction.

    Raises:
        StorageError: a newer Regraft made it.
    """
    tables = inspect(connection).get_table_names()
    found = _version_of(connection) if "alembic_version" in tables else None
    if found == SCHEMA:
        return
    from alembic import command  # noqa: PLC0415 - see above
    from alembic.config import Config  # noqa: PLC0415 - likewise
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - likewise

    config = Config()
    config.set_main_option("script_location", "regraft.stores.database:migrations")
    config.attributes["connection"] = connection
    steps = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in steps:
        raise StorageError(
            f"cannot open the database: it has schema {found}, this Regraft knows up to {SCHEMA}: upgrade Regraft"
        )
    if found is None and "examples" in tables:
        command.stamp(config, _UNVERSIONED)
    command.upgrade(config, "head")


def _version_of(connection: Connection) -> str | None:
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found
