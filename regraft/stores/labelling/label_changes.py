"""Renaming, merging and removal of labels, which versions follow.

A change is one transaction: its line in `label_changes`, the examples of the label, and a line of history for each.
Versions follow with their next retrain. Until then, the pictures that only a version's features hold follow where these
are read: a version's card says up to which time its labels followed changes (`ModelCard.labels_as_of`), and later ones
are applied to whatever is read of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from sqlalchemy import ColumnElement, Connection, Engine, Select, delete, func, insert, literal, null, select, update

from regraft.errors import InvalidRequestError, NotFoundError, PreconditionError
from regraft.label_rules import check_label, check_note, forms_of, nfc
from regraft.stores.database.engine import one_at_a_time, reading, transaction
from regraft.stores.database.tables import examples, label_changes, label_history
from regraft.stores.labelling.present_names import NO_LABELS, KnownLabels, LabelChange, called_now

_TICK: Final = timedelta(microseconds=1)
_CHANGE: Final = tuple(label_changes.c[name] for name in ("label", "new_label", "at", "annotator", "why", "caller"))
"""Columns of `LabelChange`, with its fields in order."""
_ENTRY: Final = ("model", "sha256", "label", "source", "annotator", "request_id", "caller", "at", "change")
"""Columns of `label_history`."""
_Check: TypeAlias = Callable[[Connection, set[str]], object]
_Follow: TypeAlias = Callable[[Connection], object]


@dataclass(frozen=True)
class Changed:
    """A change that was made, and how many examples it moved."""

    change: LabelChange
    examples: int


class LabelChanges:
    """A thread-safe table of changes of labels."""

    def __init__(self, engine: Engine) -> None:
        """Use the tables of ``engine``, see `regraft.stores.database.engine.open_database`."""
        self._engine = engine

    def since(self, model: str, at: str = "") -> list[LabelChange]:
        """Return a model's changes later than ``at``, oldest first."""
        with reading(self._engine, "cannot read the changes of labels") as connection:
            return _since(connection, model, at)

    def rename(
        self,
        model: str,
        label: str,
        new_label: str,
        *,
        merge: bool = False,
        known: KnownLabels = NO_LABELS,
        annotator: str = "",
        why: str = "",
        caller: str = "",
    ) -> Changed:
        """Rename a label, or merge it with another.

        Asked again, it answers as before. Of a mere rename, quarantine stays; what was merged is judged anew.

        Args:
            model: whose label it is.
            label: to be renamed.
            new_label: what its pictures are called from now on.
            merge: that label is there already, and takes the pictures in; without it, it must not be there.
            known: of the version that serves.
            annotator: who says so.
            why: for people.
            caller: who sends it.

        Raises:
            InvalidRequestError: a label is no label, both are the same, or a note is no text.
            NotFoundError: there is no such label, or none to merge with.
            PreconditionError: the new one is there, and no merge was asked for.
            StorageError: the database refused; all is as it was.
        """
        label, new_label = nfc(label), nfc(new_label)
        check_label(new_label)
        if label == new_label:
            raise InvalidRequestError(f"new_label: {new_label!r} is what the label is called already")
        change = LabelChange(label, new_label, annotator=annotator, why=why, caller=caller)

        def check(connection: Connection, labels: set[str]) -> None:
            there = _count(connection, model, new_label)
            if (there or new_label in labels) and not merge:
                raise PreconditionError(
                    f"new_label: {new_label!r} is there already, with {there} pictures: to make one label of both, "
                    "ask for a merge"
                )
            if merge and not there and new_label not in labels:
                raise NotFoundError(f"there is no label {new_label!r} to merge with: rename without asking for a merge")

        def follow(connection: Connection) -> None:
            values = {"label": new_label} | ({"quarantine": ""} if merge else {})
            connection.execute(update(examples).where(_bearing(model, label)).values(values))

        return self._make(model, change, known, check, follow, "merged from" if merge else "renamed from")

    def remove(
        self,
        model: str,
        label: str,
        *,
        known: KnownLabels = NO_LABELS,
        annotator: str = "",
        why: str = "",
        caller: str = "",
    ) -> Changed:
        """Remove a label and all its examples.

        Their bytes and their history stay, as with `regraft.stores.labels.Labels.remove`. Arguments and errors as
        `rename`.
        """
        change = LabelChange(nfc(label), None, annotator=annotator, why=why, caller=caller)

        def follow(connection: Connection) -> None:
            connection.execute(delete(examples).where(_bearing(model, change.label)))

        return self._make(model, change, known, lambda _connection, _labels: None, follow, "removed label")

    def _make(
        self,
        model: str,
        change: LabelChange,
        known: KnownLabels,
        check: _Check,
        follow: _Follow,
        source: str,
    ) -> Changed:
        check_note("annotator", change.annotator)
        check_note("why", change.why)
        with transaction(self._engine, "cannot change the label") as connection:
            one_at_a_time(connection, model)
            changes = _since(connection, model, known.as_of)
            labels = {now for each in known.labels if (now := called_now(each, changes)) is not None}
            moved = _count(connection, model, change.label)
            if change.label not in labels and not moved:
                return _made_before(connection, model, change)
            check(connection, labels)
            number, at = _append(connection, model, change)
            entries = select(
                examples.c.model,
                examples.c.sha256,
                null() if change.new_label is None else literal(change.new_label),
                literal(f"{source} {change.label}"),
                literal(change.annotator),
                literal(""),
                literal(change.caller),
                literal(at[:19] + at[26:]),
                literal(number),
            ).where(_bearing(model, change.label))
            connection.execute(insert(label_history).from_select(_ENTRY, entries))
            follow(connection)
            return Changed(LabelChange(**{**vars(change), "at": at}), moved)


def _append(connection: Connection, model: str, change: LabelChange) -> tuple[int, str]:
    """Append a change; return its number and time, later than any before."""
    last = connection.execute(select(func.max(label_changes.c.at)).where(label_changes.c.model == model)).scalar_one()
    now = datetime.now(UTC)
    at = (max(now, datetime.fromisoformat(last) + _TICK) if last else now).isoformat(timespec="microseconds")
    entry = select(func.coalesce(func.max(label_history.c.id), 0)).where(label_history.c.model == model)
    row = {**vars(change), "model": model, "at": at, "last_entry": connection.execute(entry).scalar_one()}
    number = connection.execute(insert(label_changes).returning(label_changes.c.id), row).scalar_one()
    return int(number), at


def _made_before(connection: Connection, model: str, change: LabelChange) -> Changed:
    """Return the change if it was made before, and refuse it otherwise."""
    query = select(*_CHANGE, label_changes.c.id).where(
        label_changes.c.model == model, label_changes.c.label == change.label
    )
    last = connection.execute(query.order_by(label_changes.c.at.desc()).limit(1)).one_or_none()
    if last is None:
        raise NotFoundError(f"model {model!r} has no label {change.label!r}")
    *fields, number = last
    before = LabelChange(*fields)
    if before.new_label != change.new_label:
        raise NotFoundError(f"model {model!r} has no label {change.label!r} any more: {before}")
    moved = select(func.count()).where(label_history.c.model == model, label_history.c.change == number)
    return Changed(before, int(connection.execute(moved).scalar_one()))


def _since(connection: Connection, model: str, at: str) -> list[LabelChange]:
    query: Select[Any] = select(*_CHANGE).where(label_changes.c.model == model, label_changes.c.at > at)
    return [LabelChange(*row) for row in connection.execute(query.order_by(label_changes.c.at))]


def _bearing(model: str, label: str) -> ColumnElement[bool]:
    """Select the examples of a label, in either form."""
    return (examples.c.model == model) & examples.c.label.in_(forms_of(label))


def _count(connection: Connection, model: str, label: str) -> int:
    return int(connection.execute(select(func.count()).where(_bearing(model, label))).scalar_one())
