"""Rivals of `suggest`: published ways to choose pictures to label.

Each takes a `Pool` and a number, and returns rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from regraft.model.artifact import FloatArray, Head
from serving.retraining.suggestions import Knowledge, suggest
from training.head.logistic import Linear, log_softmax, solve
from training.head.logistic import Rows as WeightedRows
from training.head.novelty import fit_novelty, novelty_threshold

Rows: TypeAlias = npt.NDArray[np.intp]

_NEIGHBOURS: Final = 20
_MOST_CLUSTERS: Final = 500
_STEPS: Final = 15
_DROPOUT: Final = 0.5
_DRAWS: Final = 20
_C: Final = 0.1
"""The strength that retrains choose most often here; any from 0.03 to 0.3 gives the same accuracy to half a point."""


@dataclass(frozen=True, eq=False)
class Learned:
    """A head on some labels, nearly as a retrain fits it.

    The penalty has one strength, and there is no temperature.

    Attributes:
        labels: its K labels.
        counts: the number of examples of every label.
        embedding: float32 [m, D], of the rows that it was fitted on.
        label_index: int64 [m].
    """

    labels: Sequence[str]
    counts: dict[str, int]
    embedding: FloatArray
    label_index: npt.NDArray[np.int64]

    @cached_property
    def linear(self) -> Linear:
        """The solution."""
        mean, scale = self._mean, float(np.sqrt(np.square(self.embedding - self._mean).mean()))
        x = np.asarray((self.embedding - mean) / scale, np.float32)
        weight = np.ones(len(x))
        found = solve(WeightedRows(x, self.label_index, weight, len(self.labels)), _C, exactly=False)
        coefficients = found.coefficients / scale
        return Linear(coefficients, found.intercepts - coefficients @ mean)

    @cached_property
    def knowledge(self) -> Knowledge:
        """The knowledge that the server would have."""
        rows = np.arange(len(self.embedding))
        novelty = fit_novelty(self.embedding, self.label_index, 0, rows, rows)
        weight, bias = (np.asarray(each, np.float32) for each in (self.linear.coefficients, self.linear.intercepts))
        head = Head(weight, bias, novelty.prototypes, novelty.whitening)
        return Knowledge(head, self.labels, novelty_threshold(novelty.out_of_fold), self.counts)

    def probabilities(self, embedding: FloatArray) -> npt.NDArray[np.float64]:
        """Return the probabilities [n, K] of rows [n, D]."""
        return np.asarray(np.exp(log_softmax(self.linear.logits(embedding))))

    @property
    def _mean(self) -> FloatArray:
        return np.asarray(self.embedding.mean(axis=0))


@dataclass
class Pool:
    """Pictures of which some are labelled.

    Attributes:
        embedding: float32 [n, D].
        random: what is drawn by lot is drawn by it.
        labelled: bool [n].
        learned: the last head; None before there is one.
    """

    embedding: FloatArray
    random: np.random.Generator
    labelled: npt.NDArray[np.bool_] = field(init=False)
    learned: Learned | None = None

    def __post_init__(self) -> None:
        """Begin without labels."""
        self.labelled = np.zeros(len(self.embedding), np.bool_)

    @property
    def open(self) -> Rows:
        """The rows without a label."""
        return np.flatnonzero(~self.labelled)

    def margin(self) -> FloatArray:
        """Return the lead of the best label in open rows.

        It is at random without a head.
        """
        if self.learned is None:
            return self.random.random(len(self.open)).astype(np.float32)
        return _margin(self.learned.probabilities(self.embedding[self.open]))


Chooser: TypeAlias = Callable[[Pool, int], Rows]


def suggested(pool: Pool, count: int) -> Rows:
    """Choose as the server does."""
    rows = pool.open
    known = pool.embedding[pool.labelled]
    knowledge = pool.learned.knowledge if pool.learned else None
    found = suggest(pool.embedding[rows], known, knowledge, count, int(pool.random.integers(2**32)))
    return rows[[each.row for each in found]]


def at_random(pool: Pool, count: int) -> Rows:
    """Draw rows."""
    return pool.random.permutation(pool.open)[:count]


def least_margin(pool: Pool, count: int) -> Rows:
    """Choose by the least margin between two labels (Scheffer et al., 2001)."""
    return pool.open[np.argsort(pool.margin(), kind="stable")[:count]]


def dropout_margin(pool: Pool, count: int) -> Rows:
    """Choose by the least margin of the mean answer under dropout.

    Half the embedding is dropped, over many draws (after Gal et al., 2017).
    """
    if pool.learned is None:
        return at_random(pool, count)
    linear, x = pool.learned.linear, pool.embedding[pool.open]
    total = np.zeros((len(x), len(linear.intercepts)))
    for _ in range(_DRAWS):
        kept = (pool.random.random(x.shape[1]) > _DROPOUT) / (1 - _DROPOUT)
        total += np.exp(log_softmax(linear.logits(np.asarray(x * kept, np.float32))))
    return pool.open[np.argsort(_margin(total), kind="stable")[:count]]


def k_centre(pool: Pool, count: int) -> Rows:
    """Choose the farthest from all labelled or chosen (Sener and Savarese, 2018)."""
    directions, rows = _directions(pool.embedding), pool.open
    known = pool.labelled.copy()
    chosen: list[int] = []
    for _ in range(count):
        if known.any():
            row = int(rows[(directions[rows] @ directions[known].T).max(axis=1).argmin()])
        else:
            row = int(pool.random.choice(rows))
        chosen.append(row)
        known[row] = True
    return np.array(chosen)


def typiclust(pool: Pool, count: int) -> Rows:
    """Choose the most typical of large unlabelled clusters (Hacohen et al., 2022)."""
    directions = _directions(pool.embedding)
    cluster = _k_means(directions, min(int(pool.labelled.sum()) + count, _MOST_CLUSTERS), pool.random)
    sizes = np.bincount(cluster).astype(float)
    labels_in = np.bincount(cluster, pool.labelled, minlength=len(sizes))
    chosen: list[int] = []
    for index in np.lexsort((-sizes, labels_in)):
        rows = np.flatnonzero((cluster == index) & ~pool.labelled)
        if len(rows) and len(chosen) < count:
            inside = np.flatnonzero(cluster == index)
            nearest = np.sort(directions[rows] @ directions[inside].T, axis=1)[:, -_NEIGHBOURS - 1 :]
            chosen.append(int(rows[nearest.mean(axis=1).argmax()]))
    return np.array(chosen)


def badge_like(pool: Pool, count: int) -> Rows:
    """Spread over the gradients of the last layer by k-means++.

    Long ones come first (Ash et al., "BADGE", 2020).
    """
    if pool.learned is None:
        return at_random(pool, count)
    x = pool.embedding[pool.open]
    slope = pool.learned.probabilities(x)
    slope[np.arange(len(x)), slope.argmax(axis=1)] -= 1
    lengths = np.square(slope).sum(axis=1) * np.square(x).sum(axis=1)
    chosen = [int(lengths.argmax())]
    distance = np.full(len(x), np.inf)
    while len(chosen) < count:
        last = chosen[-1]
        product = (slope @ slope[last]) * (x @ x[last])
        distance = np.minimum(distance, np.maximum(lengths + lengths[last] - 2 * product, 0))
        distance[chosen] = 0
        chosen.append(int(pool.random.choice(len(x), p=distance / distance.sum())))
    return pool.open[chosen]


def _margin(probabilities: npt.NDArray[np.floating]) -> FloatArray:
    two_best = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray(two_best[:, 1] - two_best[:, 0], np.float32)


def _directions(embedding: FloatArray) -> FloatArray:
    centred = embedding - embedding.mean(axis=0)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12))


def _k_means(x: FloatArray, count: int, random: np.random.Generator) -> Rows:
    """Cluster rows by Lloyd's steps from k-means++."""
    centres = x[[int(random.integers(len(x)))]]
    distance = np.square(x - centres[0]).sum(axis=1)
    while len(centres) < count:
        row = int(random.choice(len(x), p=distance / distance.sum()))
        centres = np.concatenate([centres, x[[row]]])
        distance = np.minimum(distance, np.square(x - x[row]).sum(axis=1))
    cluster = np.zeros(len(x), np.intp)
    for _ in range(_STEPS):
        cluster = (np.square(centres).sum(axis=1) - 2 * x @ centres.T).argmin(axis=1)
        filled = np.unique(cluster)
        centres[filled] = np.stack([x[cluster == index].mean(axis=0) for index in filled])
    return cluster
