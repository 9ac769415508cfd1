"""The split of pictures: groups and sides, which outlive the examples."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, select

from regraft.stores.database.engine import insert_or, reading, transaction
from regraft.stores.database.tables import splits


class Split:
    """A thread-safe table of the sides of pictures, holdout or not."""

    def __init__(self, engine: Engine) -> None:
        """Use the tables of ``engine``, see `regraft.stores.database.engine.open_database`."""
        self._engine = engine

    def sides(self, model: str) -> dict[str, bool]:
        """Return, by used picture, whether it is holdout; removed ones too."""
        query = select(splits.c.sha256, splits.c.is_holdout).where(
            splits.c.model == model, splits.c.is_holdout.is_not(None)
        )
        with reading(self._engine, "cannot read the split") as connection:
            return {row.sha256: row.is_holdout for row in connection.execute(query)}

    def keep_sides(self, model: str, sides: Mapping[str, bool]) -> None:
        """Keep the split of pictures; a decided side stays.

        Raises:
            StorageError: the database refused; all is as it was.
        """
        rows = [{"model": model, "sha256": sha256, "is_holdout": is_holdout} for sha256, is_holdout in sides.items()]
        with transaction(self._engine, "cannot keep the split") as connection:
            record_split(connection, rows, "is_holdout", splits.c.is_holdout.is_(None))


def group_of(connection: Connection, model: str, sha256: str) -> str:
    """Return the group of a picture, empty if it has none."""
    query = select(splits.c.group_name).where(splits.c.model == model, splits.c.sha256 == sha256)
    return connection.execute(query).scalar_one_or_none() or ""


def record_split(
    connection: Connection, rows: Sequence[dict[str, Any]], column: str, where: ColumnElement[bool] | None = None
) -> None:
    """Record a column of the split; old rows change under a condition."""
    if not rows:
        return
    upsert = insert_or(connection, splits)
    changes = {column: upsert.excluded[column]}
    upsert = upsert.on_conflict_do_update(index_elements=["model", "sha256"], set_=changes, where=where)
    connection.execute(upsert, [{"group_name": "", **row} for row in rows])
