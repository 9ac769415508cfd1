"""Labels as rows: those in force, and their history."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Select,
    case,
    delete,
    false,
    func,
    insert,
    not_,
    select,
    true,
    update,
)

from regraft.errors import NotFoundError, PreconditionError
from regraft.files import utc_now
from regraft.label_rules import check_label, check_note, nfc
from regraft.model.card import EmbeddingKey
from regraft.stores.database.engine import beside_each_other, in_parts, insert_or, one_at_a_time, reading, transaction
from regraft.stores.database.label_quota import check_quota, next_fits_s, set_lately
from regraft.stores.database.tables import examples, label_history, splits
from regraft.stores.embeddings import embedded
from regraft.stores.etags import check_etag, etag_of
from regraft.stores.images import EncodedPicture
from regraft.stores.lifecycle.forget import PICTURES
from regraft.stores.split import group_of, record_split

_HEX: Final = "0123456789abcdef"
_RELEASED: Final = "released from quarantine"
_EXAMPLES: Final[Select[Any]] = select(
    *(examples.c[name] for name in ("sha256", "label", "source", "added_at", "quarantine", "vouched_by")),
    func.coalesce(splits.c.group_name, ""),
    examples.c.is_original,
    examples.c.annotator,
).select_from(examples.outerjoin(splits, (splits.c.model == examples.c.model) & (splits.c.sha256 == examples.c.sha256)))
"""Rows of `Example`, with its fields in order."""


class AddOutcome(StrEnum):
    """The outcome of one labelling."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    RELABELLED = "relabelled"
    CONFLICTING = "conflicting"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Example:
    """A labelled picture; its bytes are found by the hash.

    Attributes:
        sha256: of the bytes.
        label: in force; empty: it was removed.
        source: where the picture came from, free text.
        added_at: UTC, ISO 8601.
        quarantine: why no retrain learns from it until a person has looked; empty: it is learned from.
        vouched_by: who said that the label is right, of one that was in quarantine; empty: nobody had to.
        group: what it shares with those that belong with it, see `NewExample`.
        is_original: whether a training run kept it with this label, see `regraft.stores.originals`; no retrain takes
            it for news.
        annotator: who set the label.
    """

    sha256: str
    label: str
    source: str = ""
    added_at: str = field(default="", compare=False)
    quarantine: str = ""
    vouched_by: str = ""
    group: str = ""
    is_original: bool = False
    annotator: str = ""

    def __post_init__(self) -> None:
        """Bring the label to its one form, also of older rows."""
        object.__setattr__(self, "label", nfc(self.label))

    @property
    def etag(self) -> str:
        """The name of this state."""
        return etag_of(*vars(self).values())


@dataclass(frozen=True)
class NewExample(EncodedPicture):
    """A picture that somebody labels.

    A retrain leaves out what cannot be decoded after all.

    Attributes:
        label: its class; a new one is allowed.
        source: where it comes from, free text.
        annotator: who says so.
        request_id: the prediction that it corrects.
        group: of pictures that belong together, a patient's say: all are trained on, or all are held out.
        stated_sha256: the hash that its sender states; without ``data``, of a picture in the pool.
    """

    label: str
    source: str = ""
    annotator: str = ""
    request_id: str = ""
    group: str = ""
    stated_sha256: str = ""

    def __post_init__(self) -> None:
        """Bring the label to its one form."""
        object.__setattr__(self, "label", nfc(self.label))

    def check(self) -> None:
        """Check label and notes.

        Raises:
            InvalidRequestError: the label is no label, or a note no text.
        """
        check_label(self.label)
        for name in ("source", "annotator", "request_id", "group"):
            check_note(name, getattr(self, name))


@dataclass(frozen=True)
class Labelling:
    """One line of an example's history.

    Attributes:
        label: that it was given; None: it was removed.
        source: where that came from.
        annotator: who did it.
        request_id: the prediction that it corrected.
        caller: who sent it, as the server saw it.
        at: UTC, ISO 8601.
    """

    label: str | None
    source: str
    annotator: str
    request_id: str
    caller: str
    at: str


class Labels:
    """Thread-safe tables of labels and their history."""

    def __init__(self, engine: Engine) -> None:
        """Use the tables of ``engine``, see `regraft.stores.database.engine.open_database`."""
        self._engine = engine

    def foresee(self, model: str, batch: Sequence[NewExample], caller: str, hourly_quota: int) -> list[AddOutcome]:
        """Foresee the outcomes of `record`, before pictures are kept.

        So those beyond a quota do not fill the disk. Others may change them meanwhile: only a rejection is final.
        """
        if not hourly_quota:
            return [AddOutcome.ACCEPTED] * len(batch)
        with reading(self._engine, "cannot read the quota") as connection:
            return _judge(batch, _labels_of(connection, model, batch), hourly_quota - set_lately(connection, caller))

    def record(
        self,
        model: str,
        batch: Sequence[NewExample],
        caller: str,
        hourly_quota: int,
        keep_again: Callable[[], object] = lambda: None,
    ) -> list[AddOutcome]:
        """Let labels hold whose pictures are on the disk; see `regraft.stores.examples.ExamplesStore.add_all`.

        ``keep_again`` keeps those that were removed meanwhile with another model.
        """
        with transaction(self._engine, "cannot keep the examples") as connection:
            one_at_a_time(connection, model)
            beside_each_other(connection, PICTURES)
            keep_again()
            quota = hourly_quota - set_lately(connection, caller) if hourly_quota else len(batch)
            outcomes = _judge(batch, _labels_of(connection, model, batch), quota)
            labellings = [
                (new.sha256, Labelling(new.label, new.source, new.annotator, new.request_id, caller, utc_now()))
                for new, outcome in zip(batch, outcomes, strict=True)
                if outcome in (AddOutcome.ACCEPTED, AddOutcome.RELABELLED)
            ]
            set_labels(connection, model, labellings)
            _group(connection, model, batch, outcomes)
        return outcomes

    def relabel(
        self,
        model: str,
        sha256: str,
        label: str,
        *,
        source: str = "",
        annotator: str = "",
        caller: str = "",
        hourly_quota: int = 0,
        etag: str = "",
    ) -> Example:
        """Relabel an example, or one that was removed; return it.

        Args:
            model: whose example it is.
            sha256: of the picture.
            label: that it should have.
            source: where the label comes from; the picture's own stays if empty.
            annotator: who says so.
            caller: who sends it.
            hourly_quota: as in `regraft.stores.examples.ExamplesStore.add_all`.
            etag: of the example as the caller saw it; empty: as it is.

        Raises:
            NotFoundError: there is no such example, and never was.
            InvalidRequestError: the label is no label, or a note no text.
            PreconditionError: it has another etag by now.
            OverloadedError: the caller's quota is used up.
            StorageError: the database refused; all is as it was.
        """
        label = nfc(label)
        check_label(label)
        labelling = Labelling(label, source, annotator, "", caller, utc_now())
        return self._change(model, sha256, labelling, hourly_quota, etag)

    def remove(
        self,
        model: str,
        sha256: str,
        *,
        source: str = "",
        annotator: str = "",
        caller: str = "",
        hourly_quota: int = 0,
        etag: str = "",
    ) -> Example:
        """Take an example out of training; return it as it was.

        Its bytes and its history stay, so that a version fitted on it can still be accounted for. Arguments and errors
        as `relabel`.
        """
        labelling = Labelling(None, source, annotator, "", caller, utc_now())
        return self._change(model, sha256, labelling, hourly_quota, etag)

    def next_label_fits_s(self, caller: str, hourly_quota: int) -> float:
        """Return the seconds until a caller may label again, 0 if now."""
        with reading(self._engine, "cannot read the quota") as connection:
            return next_fits_s(connection, caller, hourly_quota)

    def quarantine(self, model: str, doubted: Mapping[str, tuple[str, str]]) -> None:
        """Leave labels out of retrains until a person has looked.

        One that was changed meanwhile, or that somebody vouched for, stays as it is.

        Args:
            model: whose examples they are.
            doubted: hash to label, and why it is doubted, for people.

        Raises:
            StorageError: the database refused; all is as it was.
        """
        with transaction(self._engine, "cannot put the examples into quarantine") as connection:
            one_at_a_time(connection, model)
            for sha256, (label, why) in doubted.items():
                here = _example(model, sha256) & (examples.c.label == label) & (examples.c.vouched_by == "")
                connection.execute(update(examples).where(here).values(quarantine=why))

    def release(self, model: str, sha256: str, *, annotator: str = "", caller: str = "", etag: str = "") -> Example:
        """Release an example from quarantine, and return it.

        Args:
            model: whose example it is.
            sha256: of the picture.
            annotator: who says so.
            caller: who sends it.
            etag: as in `relabel`.

        Raises:
            NotFoundError: there is no such example.
            PreconditionError: it is not in quarantine, or has another etag by now.
            InvalidRequestError: the annotator is no text.
            StorageError: the database refused; all is as it was.
        """
        check_note("annotator", annotator)
        with transaction(self._engine, "cannot release the example") as connection:
            one_at_a_time(connection, model)
            row = connection.execute(_EXAMPLES.where(_example(model, sha256))).one_or_none()
            if row is None:
                raise NotFoundError(f"model {model!r} has no example {sha256!r}")
            before = Example(*row)
            check_etag(etag, before.etag, f"example {sha256!r}")
            if not before.quarantine:
                raise PreconditionError(f"example {sha256!r} is not in quarantine: retrains learn from it already")
            vouched_by = annotator or caller or "unknown"
            changes = {"quarantine": "", "vouched_by": vouched_by}
            connection.execute(update(examples).where(_example(model, sha256)).values(changes))
            entry = Labelling(before.label, _RELEASED, annotator, "", caller, utc_now())
            connection.execute(insert(label_history), {"model": model, "sha256": sha256, **vars(entry)})
            return replace(before, quarantine="", vouched_by=vouched_by)

    def _change(self, model: str, sha256: str, labelling: Labelling, hourly_quota: int, etag: str) -> Example:
        check_note("source", labelling.source)
        check_note("annotator", labelling.annotator)
        here = _example(model, sha256)
        with transaction(self._engine, "cannot change the example") as connection:
            one_at_a_time(connection, model)
            row = connection.execute(_EXAMPLES.where(here)).one_or_none()
            before = Example(*row) if row else None
            if before is None and labelling.label is not None:
                before = _as_removed(connection, model, sha256)
                labelling = replace(labelling, source=labelling.source or (before.source if before else ""))
            if before is None:
                raise NotFoundError(f"model {model!r} has no example {sha256!r}")
            check_etag(etag, before.etag, f"example {sha256!r}")
            if labelling.label != before.label:
                check_quota(connection, labelling.caller, hourly_quota, labels=1)
                set_labels(connection, model, [(sha256, labelling)])
            if labelling.label in (None, before.label):
                return before
            added_at = before.added_at if before.label else labelling.at
            now = {"label": labelling.label, "annotator": labelling.annotator, "added_at": added_at}
            return replace(before, **now, quarantine="", vouched_by="", is_original=False)

    def in_force(self, model: str, *, quarantined: bool = False) -> list[Example]:
        """Return the examples in force, or in quarantine, ordered by hash."""
        return self._where(model, examples.c.quarantine != "" if quarantined else true())

    def sent(self, model: str) -> list[Example]:
        """Return the examples in force that people sent, ordered by hash."""
        return self._where(model, not_(examples.c.is_original))

    def _where(self, model: str, condition: ColumnElement[bool]) -> list[Example]:
        query = _EXAMPLES.where(examples.c.model == model, condition).order_by(examples.c.sha256)
        with reading(self._engine, "cannot read the examples") as connection:
            return [Example(*row) for row in connection.execute(query)]

    def find(self, model: str, beginning: str, *, or_removed: bool = False) -> Example:
        """Return the example in force whose hash begins so.

        Args:
            model: whose example it is.
            beginning: of its hash.
            or_removed: where none in force begins so, return the one that was removed, with no label.

        Raises:
            NotFoundError: there is none, or there are several.
        """
        in_force = _EXAMPLES.where(examples.c.model == model)
        with reading(self._engine, "cannot read the examples") as connection:
            matches = [Example(*row) for row in connection.execute(_beginning(in_force, examples.c.sha256, beginning))]
            if or_removed and not matches:
                removed = connection.execute(_beginning(_removed(model), label_history.c.sha256, beginning)).scalars()
                matches = [example for sha256 in removed if (example := _as_removed(connection, model, sha256))]
        if len(matches) != 1:
            how_many = "several" if matches else "no"
            raise NotFoundError(f"model {model!r} has {how_many} examples whose hash begins {beginning!r}")
        return matches[0]

    def known(self, model: str, hashes: Sequence[str]) -> set[str]:
        """Return those hashes that are examples, in force or removed."""
        with reading(self._engine, "cannot read the examples") as connection:
            return ever_labelled(connection, model, hashes)

    def removed(self, model: str) -> set[str]:
        """Return the hashes of removed examples, which no retrain may use."""
        with reading(self._engine, "cannot read the examples") as connection:
            return set(connection.execute(_removed(model)).scalars())

    def history(self, model: str, sha256: str) -> list[Labelling]:
        """Return the history of an example, oldest first; removed ones too."""
        names = ("label", "source", "annotator", "request_id", "caller", "at")
        query = select(*(label_history.c[name] for name in names)).order_by(label_history.c.id)
        query = query.where(label_history.c.model == model, label_history.c.sha256 == sha256)
        with reading(self._engine, "cannot read the example's history") as connection:
            return [Labelling(*row) for row in connection.execute(query)]

    def count(self, model: str) -> int:
        """Count the examples that people sent."""
        query = (
            select(func.count()).select_from(examples).where(examples.c.model == model, not_(examples.c.is_original))
        )
        with reading(self._engine, "cannot count the examples") as connection:
            return int(connection.execute(query).scalar_one())

    def by_label(self, model: str) -> dict[str, int]:
        """Count a model's examples of each label, those in quarantine left out."""
        query = select(examples.c.label, func.count()).group_by(examples.c.label)
        query = query.where(examples.c.model == model, examples.c.quarantine == "")
        counts: Counter[str] = Counter()
        with reading(self._engine, "cannot count the examples") as connection:
            for label, count in connection.execute(query):
                counts[nfc(label)] += count
        return dict(counts)

    def labelled_since(self, model: str, at: str) -> int:
        """Count examples that people labelled or removed since ``at`` (UTC, ISO 8601)."""
        # Times here have whole seconds: what was labelled in that very second may count twice, which does no harm.
        new = (label_history.c.model == model) & (label_history.c.at >= at[: len("2026-01-01T00:00:00")])
        is_original = select(examples.c.sha256).where(
            examples.c.model == model, examples.c.sha256 == label_history.c.sha256, examples.c.is_original
        )
        query = select(func.count(label_history.c.sha256.distinct())).where(new, ~is_original.exists())
        with reading(self._engine, "cannot count the examples") as connection:
            return int(connection.execute(query).scalar_one())

    def without_embedding(self, model: str, key: EmbeddingKey, limit: int, after: int = 0) -> dict[str, int]:
        """Return a model's examples without an embedding, in order of labelling.

        Args:
            model: whose examples they are.
            key: of the embeddings.
            limit: no more than so many.
            after: leave out what was labelled up to here: a place that an earlier answer named.

        Returns:
            Hashes, and the place of the label of each in the history.
        """
        sha256, place = label_history.c.sha256, label_history.c.id
        is_in_force = select(examples.c.sha256).where(examples.c.model == model, examples.c.sha256 == sha256).exists()
        query = select(sha256, place).where(label_history.c.model == model, place > after).order_by(place).limit(limit)
        query = query.where(is_in_force, ~embedded(sha256, key).exists())
        with reading(self._engine, "cannot read the examples") as connection:
            return {row.sha256: row.id for row in connection.execute(query)}

    def states(self, model: str, key: EmbeddingKey) -> dict[str, int]:
        """Count a model's examples by state: embedded, waiting, removed, quarantine."""
        aside = examples.c.model == model, examples.c.quarantine != ""
        queries = (
            select(func.count()).where(examples.c.model == model),
            select(func.count()).select_from(_without_embedding(model, key).subquery()),
            select(func.count()).where(*aside),
            select(func.count(label_history.c.sha256.distinct())).where(label_history.c.model == model),
        )
        with reading(self._engine, "cannot count the examples") as connection:
            present, waiting, quarantine, ever = (int(connection.execute(query).scalar_one()) for query in queries)
        return {"embedded": present - waiting, "waiting": waiting, "removed": ever - present, "quarantine": quarantine}


def _example(model: str, sha256: str) -> ColumnElement[bool]:
    return (examples.c.model == model) & (examples.c.sha256 == sha256)


def _labels_of(connection: Connection, model: str, batch: Sequence[NewExample]) -> dict[str, str]:
    """Return the labels in force of a batch, by hash."""
    hashes = [new.sha256 for new in batch]
    query = select(examples.c.sha256, examples.c.label).where(examples.c.model == model, examples.c.sha256.in_(hashes))
    return {row.sha256: nfc(row.label) for row in connection.execute(query)}


def _judge(batch: Sequence[NewExample], in_force: Mapping[str, str], quota: int) -> list[AddOutcome]:
    """Judge a batch by the labels in force and the quota left."""
    labels = dict(in_force)
    outcomes = []
    for new in batch:
        if labels.get(new.sha256) == new.label:
            outcomes.append(AddOutcome.DUPLICATE)
        elif quota <= 0:
            outcomes.append(AddOutcome.REJECTED)
        else:
            quota -= 1
            outcomes.append(AddOutcome.RELABELLED if new.sha256 in labels else AddOutcome.ACCEPTED)
            labels[new.sha256] = new.label
    return outcomes


def _as_removed(connection: Connection, model: str, sha256: str) -> Example | None:
    """Return a removed example, with its source and no label; or None."""
    here = (label_history.c.model == model) & (label_history.c.sha256 == sha256) & label_history.c.label.is_not(None)
    query = select(label_history.c.source, label_history.c.at, label_history.c.change).where(here)
    entries = connection.execute(query.order_by(label_history.c.id)).all()
    if not entries:
        return None
    source = next((entry.source for entry in reversed(entries) if entry.source and entry.change is None), "")
    return Example(sha256, "", source, entries[0].at, group=group_of(connection, model, sha256))


def ever_labelled(connection: Connection, model: str, hashes: Sequence[str]) -> set[str]:
    """Return those hashes that have a history."""
    query = select(label_history.c.sha256).where(label_history.c.model == model, label_history.c.sha256.in_(hashes))
    return set(connection.execute(query.distinct()).scalars())


def set_labels(
    connection: Connection,
    model: str,
    labellings: Sequence[tuple[str, Labelling]],
    *,
    is_original: bool = False,
) -> None:
    """Let labels, or none, hold, and append them to the history.

    Args:
        connection: of a transaction that excludes others of the model.
        model: whose examples they are.
        labellings: hashes, each once, and what becomes of them.
        is_original: see `Example`.
    """
    rows = [{"model": model, "sha256": sha256, **vars(labelling)} for sha256, labelling in labellings]
    if not rows:
        return
    connection.execute(insert(label_history), rows)
    removed = [row["sha256"] for row in rows if row["label"] is None]
    for some in in_parts(removed):
        connection.execute(delete(examples).where(examples.c.model == model, examples.c.sha256.in_(some)))
    in_force = [
        {**{key: row[key] for key in ("model", "sha256", "label", "source", "annotator")}, "added_at": row["at"]}
        | {"is_original": is_original}
        for row in rows
        if row["label"] is not None
    ]
    if in_force:
        upsert = insert_or(connection, examples)
        new = upsert.excluded
        # What relabels a picture need not know where it came from.
        source = case((new.source != "", new.source), else_=examples.c.source)
        changes = {"label": new.label, "source": source, "annotator": new.annotator, "quarantine": "", "vouched_by": ""}
        changes["is_original"] = new.is_original
        connection.execute(upsert.on_conflict_do_update(index_elements=["model", "sha256"], set_=changes), in_force)


def _group(connection: Connection, model: str, batch: Sequence[NewExample], outcomes: Sequence[AddOutcome]) -> None:
    """Record stated groups, also of pictures that were there."""
    rows = [
        {"model": model, "sha256": new.sha256, "group_name": new.group}
        for new, outcome in zip(batch, outcomes, strict=True)
        if new.group and outcome is not AddOutcome.REJECTED
    ]
    record_split(connection, rows, "group_name")


def _without_embedding(model: str, key: EmbeddingKey) -> Select[Any]:
    return select(examples.c.sha256).where(examples.c.model == model, ~embedded(examples.c.sha256, key).exists())


def _beginning(query: Select[Any], sha256: Column[str], beginning: str) -> Select[Any]:
    """Select the first two rows whose hash begins so, by a range."""
    if not beginning or not set(beginning) <= set(_HEX):
        return query.where(false())
    return query.where(sha256 >= beginning, sha256 < f"{beginning}g").order_by(sha256).limit(2)


def _removed(model: str) -> Select[Any]:
    in_force = select(examples.c.sha256).where(
        examples.c.model == label_history.c.model, examples.c.sha256 == label_history.c.sha256
    )
    return select(label_history.c.sha256).distinct().where(label_history.c.model == model, ~in_force.exists())
