"""Removal of a model's rows and pictures."""

from collections.abc import Callable, Collection
from typing import Final

from sqlalchemy import Engine, Table, delete, select

from regraft.stores.database.engine import one_at_a_time, transaction
from regraft.stores.database.tables import embeddings, kept_requests, metadata, pooled_pictures

PICTURES: Final = "pictures"
"""The lock that a removal of pictures' files holds, and those share that let rows name them."""
_CHUNK: Final = 200
"""Pictures of one transaction, for which others wait."""


def forget_some(engine: Engine, model: str, unlink: Callable[[Collection[str]], None]) -> bool:
    """Remove some pictures of a model; False where none are left.

    Their rows go too; a file that a row of another model names stays. The files go before the rows, and both while
    nobody else can let a row name one: a crash between leaves rows, which the next call removes.

    Args:
        engine: of the examples' database.
        model: whose pictures.
        unlink: removes the files of these hashes, there or not.

    Raises:
        StorageError: the disk or the database refused.
    """
    with transaction(engine, f"cannot remove the pictures of {model!r}") as connection:
        one_at_a_time(connection, PICTURES)
        hashes: set[str] = set()
        for table in _tables_of_pictures():
            some = select(table.c.sha256).distinct().where(table.c.model == model).limit(_CHUNK)
            hashes.update(connection.execute(some).scalars())
        chunk = sorted(hashes)[:_CHUNK]
        if not chunk:
            return False
        others: set[str] = set()
        for table in _tables_of_pictures():
            named = select(table.c.sha256).distinct().where(table.c.model != model, table.c.sha256.in_(chunk))
            others.update(connection.execute(named).scalars())
        own = [sha256 for sha256 in chunk if sha256 not in others]
        unlink(own)
        connection.execute(delete(embeddings).where(embeddings.c.sha256.in_(own)))
        for table in _tables_of_pictures():
            connection.execute(delete(table).where(table.c.model == model, table.c.sha256.in_(chunk)))
    return True


def forget_rows(engine: Engine, model: str) -> None:
    """Remove every row of a model.

    Raises:
        StorageError: the database refused.
    """
    with transaction(engine, f"cannot remove the rows of {model!r}") as connection:
        for table in metadata.sorted_tables:
            if "model" in table.c:
                connection.execute(delete(table).where(table.c.model == model))


def _tables_of_pictures() -> list[Table]:
    """Return the tables of examples; pictures without labels have other files."""
    return [
        table
        for table in metadata.sorted_tables
        if {"model", "sha256"} <= {*table.c.keys()} and table not in (kept_requests, pooled_pictures)
    ]
