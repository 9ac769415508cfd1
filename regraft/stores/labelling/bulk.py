"""Changes of many labels at once, all or none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from sqlalchemy import Connection, Engine, select

from regraft.errors import InvalidRequestError, NotFoundError
from regraft.files import utc_now
from regraft.label_rules import check_hash, check_label, check_note, nfc
from regraft.stores.database.engine import in_parts, one_at_a_time, transaction
from regraft.stores.database.label_quota import check_quota
from regraft.stores.database.tables import examples, label_changes, label_history
from regraft.stores.labelling.present_names import LabelChange, called_now
from regraft.stores.labels import Labelling, set_labels

MOST: Final = 10_000
"""Examples of one change."""


@dataclass(frozen=True)
class BulkResult:
    """Numbers of examples that were changed, and were so already."""

    changed: int
    unchanged: int


@dataclass(frozen=True)
class _Former:
    """Last label and source of a removed example."""

    label: str
    source: str


_NOTHING: Final = _Former("", "")
_Decide: TypeAlias = Callable[[str | None, _Former | None], Labelling | None]
"""Of an example: its label in force, what it was if it was removed; and what becomes of it, None: it stays."""


class BulkChanges:
    """Thread-safe changes of up to `MOST` examples, in one transaction.

    Each changed example gets a line of history, and counts as one label of the caller's quota; a hash that is named
    twice counts once. All of them raise:

        InvalidRequestError: too few or too many hashes, one that is none, a label that is none, or a note no text.
        NotFoundError: one was never an example; the text names it.
        PreconditionError: the quota never suffices.
        OverloadedError: it does not suffice now.
        StorageError: the database refused.

    Whatever is raised, all is as it was.
    """

    def __init__(self, engine: Engine) -> None:
        """Use the tables of ``engine``, see `regraft.stores.database.engine.open_database`."""
        self._engine = engine

    def relabel(
        self,
        model: str,
        hashes: Sequence[str],
        label: str,
        *,
        annotator: str = "",
        caller: str = "",
        hourly_quota: int = 0,
    ) -> BulkResult:
        """Give examples, removed ones too, a label."""
        label = nfc(label)
        check_label(label)
        entry = Labelling(label, "", annotator, "", caller, utc_now())

        def decide(in_force: str | None, former: _Former | None) -> Labelling | None:
            if in_force is not None and nfc(in_force) == label:
                return None
            return replace(entry, source=former.source) if former else entry

        return self._change(model, hashes, decide, entry, hourly_quota)

    def remove(
        self,
        model: str,
        hashes: Sequence[str],
        *,
        why: str = "",
        annotator: str = "",
        caller: str = "",
        hourly_quota: int = 0,
    ) -> BulkResult:
        """Take examples out of training; those that were removed stay so."""
        entry = Labelling(None, why, annotator, "", caller, utc_now())
        return self._change(model, hashes, lambda in_force, _: None if in_force is None else entry, entry, hourly_quota)

    def restore(
        self, model: str, hashes: Sequence[str], *, annotator: str = "", caller: str = "", hourly_quota: int = 0
    ) -> BulkResult:
        """Give removed examples back the label that they had.

        Where that was renamed since, it is the new name. Examples in force stay as they are.
        """
        entry = Labelling(None, "", annotator, "", caller, utc_now())

        def decide(_in_force: str | None, former: _Former | None) -> Labelling | None:
            return replace(entry, label=former.label, source=former.source) if former else None

        return self._change(model, hashes, decide, entry, hourly_quota)

    def _change(
        self, model: str, hashes: Sequence[str], decide: _Decide, entry: Labelling, hourly_quota: int
    ) -> BulkResult:
        names = _checked(hashes)
        check_note("why", entry.source)
        check_note("annotator", entry.annotator)
        with transaction(self._engine, "cannot change the examples") as connection:
            one_at_a_time(connection, model)
            in_force = _in_force(connection, model, names)
            former = _former(connection, model, [name for name in names if name not in in_force])
            if unknown := [name for name in names if name not in in_force and name not in former]:
                first = f"model {model!r} has no example {unknown[0]!r}"
                raise NotFoundError(f"{first}: of {len(names)} there are {len(unknown)} not, and nothing was changed")
            decided = [(name, decide(in_force.get(name), former.get(name))) for name in names]
            labellings = [(name, labelling) for name, labelling in decided if labelling]
            check_quota(connection, entry.caller, hourly_quota, len(labellings))
            set_labels(connection, model, labellings)
        return BulkResult(len(labellings), len(names) - len(labellings))


def _checked(hashes: Sequence[str]) -> list[str]:
    """Return the hashes, each once."""
    names = list(dict.fromkeys(hashes))
    if not 1 <= len(hashes) <= MOST:
        raise InvalidRequestError(f"sha256: {len(hashes)} hashes; a change is of 1 to {MOST}")
    for name in names:
        check_hash(name)
    return names


def _in_force(connection: Connection, model: str, names: Sequence[str]) -> dict[str, str]:
    """Return the labels in force by hash."""
    query = select(examples.c.sha256, examples.c.label).where(examples.c.model == model)
    return {
        row.sha256: row.label
        for some in in_parts(names)
        for row in connection.execute(query.where(examples.c.sha256.in_(some)))
    }


def _former(connection: Connection, model: str, names: Sequence[str]) -> dict[str, _Former]:
    """Return what removed examples were, by hash, under today's names."""
    former: dict[str, _Former] = {}
    if not names:
        return former
    changes = _renamings(connection, model)
    columns = (label_history.c[name] for name in ("id", "sha256", "label", "source", "change"))
    query = select(*columns).where(label_history.c.model == model, label_history.c.label.is_not(None))
    for some in in_parts(names):
        for row in connection.execute(query.where(label_history.c.sha256.in_(some)).order_by(label_history.c.id)):
            later = [change for last_entry, change in changes if last_entry >= row.id]
            source = row.source if row.source and row.change is None else former.get(row.sha256, _NOTHING).source
            former[row.sha256] = _Former(called_now(row.label, later) or row.label, source)
    return former


def _renamings(connection: Connection, model: str) -> list[tuple[int, LabelChange]]:
    """Return changes of names, each after its last line of history."""
    columns = label_changes.c.last_entry, label_changes.c.label, label_changes.c.new_label
    query = select(*columns).where(label_changes.c.model == model, label_changes.c.new_label.is_not(None))
    rows = connection.execute(query.order_by(label_changes.c.at))
    return [(row.last_entry, LabelChange(row.label, row.new_label)) for row in rows]
