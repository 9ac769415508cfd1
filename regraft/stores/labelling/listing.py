"""Pages of a model's examples: filters, orders, and predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

from sqlalchemy import Column, ColumnElement, Connection, Engine, Select, Table, select, tuple_

from regraft.label_rules import forms_of
from regraft.stores.database.engine import in_parts, reading
from regraft.stores.database.tables import examples, predictions, splits
from regraft.stores.labelling.predictions import COLUMNS, Prediction, exists_by_key, holds
from regraft.stores.labels import Example

Place: TypeAlias = tuple[str | float, str]
"""Of an example in an order: its value and its hash. Empty value where the order is that of the hashes."""


class Order(StrEnum):
    """An order of examples."""

    HASH = "hash"
    NEWEST = "newest"
    LIKELY_WRONG = "likely wrong"
    LEAST_SURE = "least sure"
    MOST_NOVEL = "most novel"


class Side(StrEnum):
    """The side of the split that a picture is on."""

    TRAINING = "training"
    HOLDOUT = "holdout"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Filter:
    """Conditions on the examples of a list; all meet empty ones.

    Attributes:
        label: in force.
        side: of the split; undecided are those that no retrain has used yet.
        source: where the picture came from.
        annotator: who set the label.
        is_right: the head answers the label, or another one.
        suspected: the head's answer makes the label likely wrong.
        quarantined: no retrain learns from it until a person has looked.
        since: added at this time or later, UTC, ISO 8601.
    """

    label: str = ""
    side: Side | None = None
    source: str = ""
    annotator: str = ""
    is_right: bool | None = None
    suspected: bool = False
    quarantined: bool = False
    since: str = ""

    @property
    def needs_predictions(self) -> bool:
        """True where only examples with a prediction can meet it."""
        return self.is_right is not None or self.suspected


@dataclass(frozen=True)
class Listed:
    """An example in a list.

    Attributes:
        example: itself.
        side: of the split.
        prediction: of the head that was asked for; None: it is still to be made.
        place: where it stands.
    """

    example: Example
    side: Side
    prediction: Prediction | None
    place: Place


@dataclass(frozen=True)
class _Sorting:
    """A column to sort by, and its direction."""

    column: Column[Any]
    is_descending: bool


_SORTING: Final = {
    Order.NEWEST: _Sorting(examples.c.added_at, is_descending=True),
    Order.LIKELY_WRONG: _Sorting(predictions.c.doubt, is_descending=True),
    Order.LEAST_SURE: _Sorting(predictions.c.probability, is_descending=False),
    Order.MOST_NOVEL: _Sorting(predictions.c.novelty, is_descending=True),
}
_FIELDS: Final = tuple(name for name in Example.__dataclass_fields__ if name != "group")
"""Of `Example`, those that its row has."""
OF_PREDICTIONS: Final = frozenset({Order.LIKELY_WRONG, Order.LEAST_SURE, Order.MOST_NOVEL})
"""Orders that only examples with a prediction have a place in."""


class Listing:
    """Thread-safe pages of examples in force."""

    def __init__(self, engine: Engine) -> None:
        """Use the tables of ``engine``, see `regraft.stores.database.engine.open_database`."""
        self._engine = engine

    def page(
        self,
        model: str,
        wanted: Filter = Filter(),
        order: Order = Order.HASH,
        *,
        head: str = "",
        after: Place | None = None,
        most: int,
    ) -> list[Listed]:
        """Return the examples that come next in an order.

        Args:
            model: whose they are.
            wanted: which of them.
            order: of the list; equals are ordered by their hashes.
            head: whose predictions they come with, see `regraft.stores.labelling.predictions.head_key`; none if empty.
            after: the place of the last one before them; None: the first ones.
            most: no more than so many.
        """
        query = _hashes(model, wanted, order, head)
        with reading(self._engine, "cannot read the examples") as connection:
            hashes = connection.execute(_sorted(query, order, after).limit(most)).scalars().all()
            return _listed(connection, model, order, head, hashes)


def _hashes(model: str, wanted: Filter, order: Order, head: str) -> Select[Any]:
    """Select the hashes of examples, unsorted.

    Each condition on another table is one look by the key, see `exists_by_key`.
    """
    of_examples, of_predictions = _conditions_on_examples(model, wanted), _conditions_on_predictions(wanted)
    if order in OF_PREDICTIONS:
        mine = predictions.c.model == model, predictions.c.head == head
        query = select(predictions.c.sha256).where(*mine, exists_by_key(examples, holds(head), *of_examples))
        return query.where(*of_predictions, *_conditions_on_split(predictions, wanted))
    query = select(examples.c.sha256).where(*of_examples, *_conditions_on_split(examples, wanted))
    if wanted.needs_predictions:
        query = query.where(exists_by_key(predictions, holds(head), *of_predictions))
    return query


def _conditions_on_examples(model: str, wanted: Filter) -> list[ColumnElement[bool]]:
    conditions = [examples.c.model == model]
    if wanted.label:
        conditions.append(examples.c.label.in_(forms_of(wanted.label)))
    for column, text in ((examples.c.source, wanted.source), (examples.c.annotator, wanted.annotator)):
        if text:
            conditions.append(column == text)
    if wanted.quarantined:
        conditions.append(examples.c.quarantine != "")
    if wanted.since:
        conditions.append(examples.c.added_at >= wanted.since)
    return conditions


def _conditions_on_predictions(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.label:
        conditions.append(predictions.c.of_label.in_(forms_of(wanted.label)))
    if wanted.is_right is not None:
        conditions.append(predictions.c.is_right.is_(wanted.is_right))
    if wanted.suspected:
        conditions.append(predictions.c.is_suspected.is_(True))
    return conditions


def _conditions_on_split(of: Table, wanted: Filter) -> list[ColumnElement[bool]]:
    """Return the condition on the side of a table's pictures."""
    if wanted.side is None:
        return []
    here = splits.c.model == of.c.model, splits.c.sha256 == of.c.sha256
    if wanted.side is Side.UNDECIDED:
        return [~exists_by_key(splits, *here, splits.c.is_holdout.is_not(None))]
    return [exists_by_key(splits, *here, splits.c.is_holdout.is_(wanted.side is Side.HOLDOUT))]


def _sorted(query: Select[Any], order: Order, after: Place | None) -> Select[Any]:
    """Sort a query, and begin it behind a place."""
    sorting = _SORTING.get(order)
    sha256 = predictions.c.sha256 if order in OF_PREDICTIONS else examples.c.sha256
    if sorting is None:
        return query.where(sha256 > (after[1] if after else "")).order_by(sha256)
    if after is not None:
        here, place = tuple_(sorting.column, sha256), tuple_(*after)
        query = query.where(here < place if sorting.is_descending else here > place)
    if sorting.is_descending:
        return query.order_by(sorting.column.desc(), sha256.desc())
    return query.order_by(sorting.column, sha256)


def _listed(connection: Connection, model: str, order: Order, head: str, hashes: Sequence[str]) -> list[Listed]:
    """Read examples with sides and predictions, in the hashes' order."""
    found: dict[str, Any] = {}
    sides: dict[str, Any] = {}
    answers: dict[str, Prediction] = {}
    for some in in_parts(hashes):
        of_model = (
            select(table).where(table.c.model == model, table.c.sha256.in_(some)) for table in (examples, splits)
        )
        found_rows, side_rows = (connection.execute(query) for query in of_model)
        found |= {row.sha256: row for row in found_rows}
        sides |= {row.sha256: row for row in side_rows}
        made = select(predictions.c.sha256, predictions.c.of_label, *COLUMNS).where(
            predictions.c.model == model, predictions.c.head == head, predictions.c.sha256.in_(some)
        )
        for sha256, of_label, *answer in connection.execute(made):
            if sha256 in found and found[sha256].label == of_label:
                answers[sha256] = Prediction(*answer)
    return [
        _with_all(found[name], sides.get(name), answers.get(name), order)
        for name in hashes
        if name in found and (name in answers or order not in OF_PREDICTIONS)  # it changed at this very moment
    ]


def _with_all(row: Any, side: Any, prediction: Prediction | None, order: Order) -> Listed:  # noqa: ANN401 - rows
    fields = {name: getattr(row, name) for name in _FIELDS}
    example = Example(**fields, group=side.group_name if side else "")
    is_holdout = side.is_holdout if side else None
    on = Side.UNDECIDED if is_holdout is None else Side.HOLDOUT if is_holdout else Side.TRAINING
    return Listed(example, on, prediction, (_value(example, prediction, order), example.sha256))


def _value(example: Example, prediction: Prediction | None, order: Order) -> str | float:
    """Return the value that an order sorts an example by."""
    if order is Order.HASH:
        return ""
    value: str | float = getattr(prediction if order in OF_PREDICTIONS else example, _SORTING[order].column.name)
    return value
