"""Suggestions for labelling, among the served pictures that were kept.

While a class has few examples, typical pictures teach most about it; later those that the model wavers at do (Hacohen
et al., 2022: with a low budget typical examples, with a high one uncertain ones). Novel ones may be a class that nobody
named yet. A share is drawn by lot: without it nobody could tell what the choice is worth, nor how the model fares on
what it is really asked.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from regraft.model.artifact import FloatArray, Head
from regraft.stores.requests import KeptRequest

FEW_EXAMPLES: Final = 20
RANDOM_SHARE: Final = 0.2
_NEIGHBOURS: Final = 20
_MAX_COMPARED: Final = 1_000
"""The newest of a class, which are compared with each other."""
_DUPLICATE_COSINE: Final = 0.95
"""Cosine of centred embeddings from which on one of two pictures teaches nothing more."""

T = TypeVar("T")
_Rows = npt.NDArray[np.intp]


class Reason(StrEnum):
    """The reason for a suggestion."""

    RANDOM = "random"
    TYPICAL = "typical"
    UNCERTAIN = "uncertain"
    NOVEL = "novel"


@dataclass(frozen=True)
class Suggestion:
    """A picture to label, with the serving head's answer."""

    request: KeptRequest
    reason: Reason
    label: str
    probability: float
    novelty: float


@dataclass(frozen=True, eq=False)
class _Scores:
    """N requests: probabilities [N, K], novelty [N], centred directions [N, D]."""

    probabilities: FloatArray
    novelty: FloatArray
    directions: FloatArray

    @property
    def top(self) -> _Rows:
        return np.asarray(self.probabilities.argmax(axis=1))


def suggest(
    requests: Sequence[KeptRequest],
    head: Head,
    labels: Sequence[str],
    novelty_threshold: float,
    examples: Mapping[str, int],
    count: int,
    seed: int | None = None,
) -> list[Suggestion]:
    """Return at most ``count`` requests to label, the random share last.

    Args:
        requests: with embeddings of the head's backbone.
        head: that serves.
        labels: its K labels.
        novelty_threshold: beyond it a picture is novel.
        examples: the number that each label has.
        count: the most to propose.
        seed: of the lot.
    """
    if not requests:
        return []
    scores = _score(head, np.array([request.embedding for request in requests], np.float32))
    drawn = np.random.default_rng(seed).permutation(len(requests))[: max(1, round(RANDOM_SHARE * count))]
    selection = _Selection(scores.directions, drawn)
    best = _in_turn(scores, labels, novelty_threshold, examples, selection)
    chosen = list(islice(best, count - len(drawn)))
    chosen += [(int(row), Reason.RANDOM) for row in drawn]
    return [
        Suggestion(
            requests[row],
            reason,
            labels[scores.top[row]],
            float(scores.probabilities[row].max()),
            float(scores.novelty[row]),
        )
        for row, reason in chosen
    ]


def _score(head: Head, embedding: FloatArray) -> _Scores:
    centred = embedding - embedding.mean(axis=0)
    length = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return _Scores(head.probabilities(embedding), head.novelty(embedding), centred / length)


def _in_turn(
    scores: _Scores,
    labels: Sequence[str],
    novelty_threshold: float,
    examples: Mapping[str, int],
    selection: "_Selection",
) -> Iterator[tuple[int, Reason]]:
    """Select rows, the most useful first."""
    is_novel = scores.novelty > novelty_threshold
    scarce = [
        islice(
            filter(selection.take, _most_typical(scores, np.flatnonzero((scores.top == index) & ~is_novel))), lacking
        )
        for index, label in enumerate(labels)
        if (lacking := FEW_EXAMPLES - examples.get(label, 0)) > 0
    ]
    for row in _round_robin(scarce):
        yield row, Reason.TYPICAL
    two_best = np.sort(scores.probabilities, axis=1)[:, -2:]
    uncertain = np.argsort(two_best[:, 1] - two_best[:, 0], kind="stable").tolist()
    novel = np.flatnonzero(is_novel)[np.argsort(-scores.novelty[is_novel], kind="stable")].tolist()
    both = ((row, Reason.UNCERTAIN) for row in uncertain), ((row, Reason.NOVEL) for row in novel)
    yield from ((row, reason) for row, reason in _round_robin(both) if selection.take(row))


def _round_robin(queues: Iterable[Iterator[T]]) -> Iterator[T]:
    """Yield one of each in turn, until all are empty."""
    remaining = list(queues)
    while remaining:
        for queue in list(remaining):
            try:
                yield next(queue)
            except StopIteration:
                remaining.remove(queue)


def _most_typical(scores: _Scores, rows: _Rows) -> list[int]:
    """Order rows by their mean likeness to their neighbours, typical first."""
    rows = rows[-_MAX_COMPARED:]
    if len(rows) < 2:
        return [int(row) for row in rows]
    likeness = scores.directions[rows] @ scores.directions[rows].T
    nearest = np.sort(likeness, axis=1)[:, -_NEIGHBOURS - 1 : -1]  # the last is the row itself
    return [int(row) for row in rows[np.argsort(-nearest.mean(axis=1), kind="stable")]]


class _Selection:
    """The selected rows, of which no two are nearly the same."""

    def __init__(self, directions: FloatArray, rows: _Rows) -> None:
        self._directions = directions
        self._rows = [int(row) for row in rows]

    def take(self, row: int) -> bool:
        if row in self._rows or (self._directions[self._rows] @ self._directions[row]).max() >= _DUPLICATE_COSINE:
            return False
        self._rows.append(row)
        return True
