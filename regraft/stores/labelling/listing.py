"""Pages of a model's examples: filters, orders, and the predictions of a head."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias
from unicodedata import normalize

from sqlalchemy import Column, ColumnElement, Engine, Select, and_, func, select, tuple_

from regraft.stores.database.engine import reading
from regraft.stores.database.tables import examples, predictions, splits
from regraft.stores.labelling.predictions import COLUMNS, Prediction, holds
from regraft.stores.labels import EXAMPLE_COLUMNS, IN_SPLIT, WITH_SPLIT, Example

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
    """Conditions that all of a list's examples meet; empty ones are met by all.

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
        """Whether only examples with a prediction can meet it."""
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
        query = _query(model, wanted, order, head)
        with reading(self._engine, "cannot read the examples") as connection:
            rows = connection.execute(_sorted(query, order, after).limit(most))
            return [_listed(row, order) for row in rows]


def _query(model: str, wanted: Filter, order: Order, head: str) -> Select[Any]:
    """Select examples and what they come with, unsorted."""
    columns = (*EXAMPLE_COLUMNS, splits.c.is_holdout, *COLUMNS)
    of_examples, of_others = _conditions_on_examples(model, wanted), _conditions_on_others(wanted)
    if order not in OF_PREDICTIONS or wanted.label:
        needs = wanted.needs_predictions or order in OF_PREDICTIONS
        query: Select[Any] = select(*columns).select_from(WITH_SPLIT.join(predictions, holds(head), isouter=not needs))
        return query.where(*of_examples, *of_others)
    # An outer join, or SQLite would begin with the examples, and sort them all for each page.
    here = predictions.outerjoin(examples, and_(holds(head), *of_examples)).outerjoin(splits, IN_SPLIT)
    is_there = func.coalesce(examples.c.sha256, "") != ""
    mine = predictions.c.model == model, predictions.c.head == head
    return select(*columns).select_from(here).where(*mine, is_there, *of_others)


def _conditions_on_examples(model: str, wanted: Filter) -> list[ColumnElement[bool]]:
    conditions = [examples.c.model == model]
    if wanted.label:  # older rows may have it in the other form
        conditions.append(examples.c.label.in_([normalize(form, wanted.label) for form in ("NFC", "NFD")]))
    for column, text in ((examples.c.source, wanted.source), (examples.c.annotator, wanted.annotator)):
        if text:
            conditions.append(column == text)
    if wanted.quarantined:
        conditions.append(examples.c.quarantine != "")
    if wanted.since:
        conditions.append(examples.c.added_at >= wanted.since)
    return conditions


def _conditions_on_others(wanted: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions on splits and predictions."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.side is not None:
        is_holdout = {Side.TRAINING: False, Side.HOLDOUT: True, Side.UNDECIDED: None}[wanted.side]
        conditions.append(splits.c.is_holdout.is_(is_holdout))
    if wanted.is_right is not None:
        conditions.append(predictions.c.is_right.is_(wanted.is_right))
    if wanted.suspected:
        conditions.append(predictions.c.is_suspected.is_(True))
    return conditions


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


def _listed(row: Any, order: Order) -> Listed:  # noqa: ANN401 - a row of the query
    fields = tuple(row)
    example = Example(*fields[: len(EXAMPLE_COLUMNS)])
    is_holdout, *answer = fields[len(EXAMPLE_COLUMNS) :]
    side = Side.UNDECIDED if is_holdout is None else Side.HOLDOUT if is_holdout else Side.TRAINING
    prediction = None if answer[0] is None else Prediction(*answer)
    return Listed(example, side, prediction, (_value(example, prediction, order), example.sha256))


def _value(example: Example, prediction: Prediction | None, order: Order) -> str | float:
    if order is Order.NEWEST:
        return example.added_at
    if prediction is None or order is Order.HASH:
        return ""
    return {
        Order.LIKELY_WRONG: prediction.doubt,
        Order.LEAST_SURE: prediction.probability,
        Order.MOST_NOVEL: prediction.novelty,
    }[order]
