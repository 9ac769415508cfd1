"""Near-duplicates by their embeddings: another size, crop or exposure, a mirror image, the next shot of a scene."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from regraft.artifact import FloatArray
from regraft.runtime import cpu_budget

MAX_PAIRS: Final = 50
LIKE: Final = 0.8
SAME: Final = 0.95
STANDS_OUT: Final = 0.5
_PULL: Final = 3
_BLOCK: Final = 512

_Rows = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates among n rows.

    Attributes:
        pairs: int64 [p, 2], p <= `MAX_PAIRS`, the lower row first; pairs across the splits first, then the likest.
        cosine: float32 [p], of the centred embeddings, at most 1.
        found: how many pairs there are in all.
        across: how many of these lie across the splits.
    """

    pairs: _Rows
    cosine: FloatArray
    found: int
    across: int


def near_duplicates(embedding: FloatArray, answer: _Rows, is_holdout: _Mask) -> Duplicates:
    """Find pairs of pictures that are nearly the same.

    Embeddings are centred on the mean of the pictures that were answered alike; what is left tells a picture from
    others of its class, also after fine-tuning has drawn classes together. A pair is one if its cosine is at least
    `SAME`; or at least `LIKE`, if it also stands out: its distance is at most half of that to the third nearest
    picture. Photos of steel are all alike, others are not: one threshold for both would fill the list with mere
    likenesses, or leave it empty.

    Memory is a few times that of ``embedding``; time grows with the square of n.

    Args:
        embedding: float32 [n, D].
        answer: int64 [n], the class that each row was answered with.
        is_holdout: bool [n].
    """
    with threadpool_limits(limits=cpu_budget()):
        nearest, third = _neighbours(embedding, answer)
        best = Duplicates(np.empty((0, 2), np.int64), np.empty(0, np.float32), 0, 0)
        for rows, cosine in _cosines(embedding, answer, nearest >= LIKE):
            best = _merge(best, *_pairs(rows, cosine, third), is_holdout)
    return best


def _cosines(embedding: FloatArray, answer: _Rows, wanted: _Mask) -> Iterator[tuple[_Rows, FloatArray]]:
    """Yield some of the wanted rows, and their cosines [rows, n] with all rows; -1 with themselves.

    Both are centred on the mean of the row's class. That of a small class is pulled towards the mean of all rows, or
    a pair that is a whole class would cancel out.
    """
    overall = embedding.mean(axis=0, dtype=np.float64) if len(embedding) else 0
    for each in np.unique(answer):
        alike = answer == each
        total = embedding[alike].sum(axis=0, dtype=np.float64) + _PULL * overall
        directions = embedding - (total / (alike.sum() + _PULL)).astype(np.float32)
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), np.float32(1e-12))
        rows = np.flatnonzero(alike & wanted)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            cosine = directions[block] @ directions.T
            cosine[np.arange(len(block)), block] = -1
            yield block, np.clip(cosine, -1, 1)


def _neighbours(embedding: FloatArray, answer: _Rows) -> tuple[FloatArray, FloatArray]:
    """Return each row's cosine with the nearest and with the third nearest other row; -1 where there is none."""
    nearest, third = np.full((2, len(embedding)), -1, np.float32)
    for rows, cosine in _cosines(embedding, answer, np.ones(len(embedding), np.bool_)):
        nearest[rows] = cosine.max(axis=1)
        if len(embedding) > 3:
            third[rows] = np.partition(cosine, -3, axis=1)[:, -3]
    return nearest, third


def _pairs(rows: _Rows, cosine: FloatArray, third: FloatArray) -> tuple[_Rows, FloatArray]:
    """Return the pairs [p, 2] whose lower row is one of ``rows``, and their cosines [p]."""
    around = 1 - np.maximum(third[rows][:, None], third[None, :])
    near = (cosine >= SAME) | ((cosine >= LIKE) & (1 - cosine <= STANDS_OUT * around))
    first, second = np.nonzero(near & (rows[:, None] < np.arange(len(third))))
    return np.column_stack([rows[first], second]), cosine[first, second]


def _merge(best: Duplicates, pairs: _Rows, cosine: FloatArray, is_holdout: _Mask) -> Duplicates:
    """Keep the first `MAX_PAIRS` of what was found until now and what is new; count all."""
    found, across = best.found + len(pairs), best.across + int(_across(pairs, is_holdout).sum())
    pairs, cosine = np.concatenate([best.pairs, pairs]), np.concatenate([best.cosine, cosine])
    rank = -(cosine + 3 * _across(pairs, is_holdout))  # a cosine is at most 1, so any pair across goes before the rest
    if len(rank) > MAX_PAIRS:
        first = np.argpartition(rank, MAX_PAIRS)[:MAX_PAIRS]
        pairs, cosine, rank = pairs[first], cosine[first], rank[first]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], rank))
    return Duplicates(pairs[order], cosine[order], found, across)


def _across(pairs: _Rows, is_holdout: _Mask) -> _Mask:
    return np.asarray(is_holdout[pairs[:, 0]] != is_holdout[pairs[:, 1]], np.bool_)
