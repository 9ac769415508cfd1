"""Original pictures, which a training run learned from.

They are examples like those that people sent, so that everybody sees them and can put them right. But the version that
they were trained into has their labels and sides already: until a person gives one another label, none of them is news.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, select

from regraft.files import utc_now
from regraft.label_rules import nfc
from regraft.model.artifact import FloatArray
from regraft.stores.database.engine import beside_each_other, one_at_a_time, reading, transaction
from regraft.stores.database.tables import examples, label_history, splits
from regraft.stores.labels import Labelling, ever_labelled, set_labels
from regraft.stores.lifecycle.forget import PICTURES
from regraft.stores.split import record_split

FIRST_SOURCE: Final = "first training data"
"""The source of original pictures whose list does not say one."""


@dataclass(frozen=True, eq=False)
class OriginalPicture:
    """A picture that a training run learned from, or was judged by.

    Attributes:
        file: the picture, as the run found it.
        embedding: float32 [D], by the run's backbone.
        source: where it comes from, free text.
        group: as in `regraft.stores.labels.NewExample`.
    """

    sha256: str
    file: Path
    label: str
    is_holdout: bool
    embedding: FloatArray
    source: str = FIRST_SOURCE
    group: str = ""


@dataclass(frozen=True)
class KeptOriginals:
    """Numbers of original pictures by what became of them.

    Attributes:
        examples: are examples now.
        linked: are hard links to the files that the run read.
        removed: were removed from the examples before, and stay so.
        changed: are not what the run read any more, and are not kept.
    """

    examples: int = 0
    linked: int = 0
    removed: int = 0
    changed: int = 0

    def __add__(self, other: "KeptOriginals") -> "KeptOriginals":
        """Add up."""
        return KeptOriginals(*map(operator.add, astuple(self), astuple(other)))


def pictures_missing(model: str, missing: Sequence[str], count: int) -> str:
    """Return the text on a version's pictures that are no examples."""
    return (
        f"{len(missing)} of {count} pictures of {model!r} are not among the examples, the first is {missing[0]}: its "
        f"version is older, or did not keep them; `regraft refresh DATA --name {model}` trains on the folder that has "
        "them, and keeps them"
    )


class Originals:
    """Original pictures among the thread-safe tables of labels."""

    def __init__(self, engine: Engine) -> None:
        """Use the tables of ``engine``, see `regraft.stores.database.engine.open_database`."""
        self._engine = engine

    def record(
        self,
        model: str,
        batch: Sequence[OriginalPicture],
        annotator: str,
        keep_again: Callable[[], object] = lambda: None,
        *,
        is_live: bool,
    ) -> int:
        """Record pictures whose bytes are on the disk.

        What a person said of one, by a label or by its removal, stays. Of a run that goes live labels and sides hold
        against those of earlier runs.

        Args:
            model: that was trained.
            batch: distinct pictures.
            annotator: who trained it, for the history.
            keep_again: as in `regraft.stores.labels.Labels.record`.
            is_live: whether the run's version goes live.

        Returns:
            How many of them are examples now; the others were removed before, and stay so.

        Raises:
            StorageError: the database refused; all is as it was.
        """
        with transaction(self._engine, "cannot keep the original pictures") as connection:
            one_at_a_time(connection, model)
            beside_each_other(connection, PICTURES)
            keep_again()
            hashes = [each.sha256 for each in batch]
            known, ever = _in_force(connection, model, hashes), ever_labelled(connection, model, hashes)
            fresh = [each for each in batch if each.sha256 not in ever]
            news = [each for each in batch if is_live and known.get(each.sha256, each.label) not in ("", each.label)]
            labellings = [
                (each.sha256, Labelling(each.label, each.source, annotator, "", "", utc_now()))
                for each in (*fresh, *news)
            ]
            set_labels(connection, model, labellings, is_original=True)
            grouped = [{**_key(model, each), "group_name": each.group} for each in fresh if each.group]
            record_split(connection, grouped, "group_name")
            sides = [{**_key(model, each), "is_holdout": each.is_holdout} for each in batch]
            record_split(connection, sides, "is_holdout", None if is_live else splits.c.is_holdout.is_(None))
        return len(known.keys() | {each.sha256 for each in fresh})

    def known(self, model: str) -> set[str]:
        """Return the hashes of all that was ever an example."""
        with reading(self._engine, "cannot read the examples") as connection:
            query = select(label_history.c.sha256).distinct().where(label_history.c.model == model)
            return set(connection.execute(query).scalars())


def _in_force(connection: Connection, model: str, hashes: Sequence[str]) -> dict[str, str]:
    """Return original labels by hash, empty where people gave another."""
    query = select(examples.c.sha256, examples.c.label, examples.c.is_original)
    rows = connection.execute(query.where(examples.c.model == model, examples.c.sha256.in_(hashes)))
    return {row.sha256: nfc(row.label) if row.is_original else "" for row in rows}


def _key(model: str, picture: OriginalPicture) -> dict[str, object]:
    return {"model": model, "sha256": picture.sha256}
