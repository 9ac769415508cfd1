"""Schema versions, and the upgrade of older databases.

A step is a module in `regraft.stores.database.migrations.versions`; `SCHEMA` names the last one, so that a database
that has it is told without Alembic, which takes a third of a second to import.
"""

from typing import Final

from sqlalchemy import Connection, inspect, text

from regraft.errors import StorageError

SCHEMA: Final = "0011"
_UNVERSIONED: Final = "0001"
"""The schema of databases from before schemas had versions."""


def is_up_to_date(connection: Connection) -> bool:
    """Tell whether a database lacks no step."""
    return inspect(connection).has_table("alembic_version") and _version_of(connection) == SCHEMA


def bring_up_to_date(connection: Connection) -> None:
    """Take the missing steps, in the caller's transaction.

    All of them or none.

    Raises:
        StorageError: a newer Regraft made it.
    """
    tables = inspect(connection).get_table_names()
    version = _version_of(connection) if "alembic_version" in tables else None
    if version == SCHEMA:
        return
    from alembic import command  # noqa: PLC0415 - see above
    from alembic.config import Config  # noqa: PLC0415 - likewise
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - likewise

    config = Config()
    config.set_main_option("script_location", "regraft.stores.database:migrations")
    config.attributes["connection"] = connection
    steps = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in steps:
        raise StorageError(
            f"cannot open the database: it has schema {version}, this Regraft knows up to {SCHEMA}: upgrade Regraft"
        )
    if version is None and "examples" in tables:
        command.stamp(config, _UNVERSIONED)
    command.upgrade(config, "head")


def _version_of(connection: Connection) -> str | None:
    version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return version
