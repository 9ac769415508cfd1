"""Near-duplicates: other crops, exposures or shots, by their embeddings."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from regraft.machine import cpu_budget
from regraft.model.artifact import FloatArray
from training.data.groups import merged
from training.evaluation.neighbours import EXACT_UP_TO, cosines, nearest

MAX_PAIRS: Final = 50
LIKE: Final = 0.8
SAME: Final = 0.95
STANDS_OUT: Final = 0.5
VERSION: Final = 0.6
LEAP: Final = 0.6
MOST_VERSIONS: Final = 10
_ROUNDING: Final = 1e-6
_BY_CHANCE: Final = 1000
_FAR: Final = 3
MOST_NEIGHBOURS: Final = 16

_Rows = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates among n rows.

    Attributes:
        pairs: int64 [p, 2], p <= `MAX_PAIRS`, the lower row first; across the splits first, then the most similar.
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

    Beyond `training.evaluation.neighbours.EXACT_UP_TO` rows only the `MOST_NEIGHBOURS` nearest of each are looked at: a
    picture that is there more often than that has more pairs than are found.

    Args:
        embedding: float32 [n, D].
        answer: int64 [n], the class that each row was answered with.
        is_holdout: bool [n].
    """
    best = Duplicates(np.empty((0, 2), np.int64), np.empty(0, np.float32), 0, 0)
    if len(embedding) > EXACT_UP_TO:
        return _merge(best, *_pairs_of_neighbours(embedding, answer), is_holdout)
    with threadpool_limits(limits=cpu_budget()):
        first, third = _neighbours(embedding, answer)
        for rows, cosine in cosines(embedding, answer, first >= LIKE):
            best = _merge(best, *_pairs(rows, cosine, third), is_holdout)
    return best


def look_alikes(embedding: FloatArray, label_index: _Rows) -> _Rows:
    """Find pairs [p, 2] of likely versions of one picture, to keep together.

    A picture goes with its nearest up to the last of `MOST_VERSIONS` after which the distance leaps: `LEAP` times the
    next is more than that, and so large a leap is no chance, see `_leaps`. So versions are found however many there are
    of each picture, and hardly any where all pictures are alike. One also goes with all whose cosine is at least
    `SAME`, unless that would bring more than half of a class together. To keep two together that are not versions
    costs little, so this finds more than `near_duplicates`.

    Args:
        embedding: float32 [n, D].
        label_index: int64 [n].
    """
    index, cosine = nearest(embedding, label_index, MOST_VERSIONS + 1)
    size = np.bincount(label_index)[label_index] if len(embedding) else np.empty(0, np.int64)
    leaps = _leaps(np.maximum(1 - cosine, _ROUNDING), size) & (cosine[:, :-1] >= VERSION)
    ranks = np.arange(leaps.shape[1])
    last = np.where(leaps, ranks, -1).max(axis=1, initial=-1)
    near = _linked(index, ranks <= last[:, None])
    same = _linked(index, cosine >= SAME)
    together = merged(np.arange(len(embedding)), np.concatenate([near, same]))
    same = same[~_is_most_of_a_class(together, label_index)[same[:, 0]]]
    return np.unique(np.concatenate([near, same]), axis=0)


def _leaps(distance: FloatArray, size: _Rows) -> _Mask:
    """Find the neighbours after which the distance leaps, bool [n, k].

    Of points in m dimensions the k-th distance is to the next as U^(1/km), with U uniform (Levina and Bickel, "Maximum
    Likelihood Estimation of Intrinsic Dimension", 2004). m is taken from the median beyond the first `_FAR`, which
    versions hardly touch. A leap is one that chance makes once in `_BY_CHANCE`: in few dimensions, as of plain colours,
    there are large ones.

    Args:
        distance: [n, k + 1], ascending.
        size: int64 [n], of the row's class; its end is no leap, so that ranks beyond half of it do not count.
    """
    ranks = np.arange(1, distance.shape[1])
    within = (ranks == 1) | (ranks < size[:, None] / 2)
    ratio = distance[:, :-1] / distance[:, 1:]
    exponents = -np.log(np.clip(ratio, 1e-9, 1)) * ranks
    far = within & (ranks > _FAR)
    exponents = exponents[far if far.any() else within]
    if not len(exponents):
        return np.zeros(ratio.shape, np.bool_)
    dimensions = np.log(2) / max(float(np.median(exponents)), 1e-9)
    by_chance = _BY_CHANCE ** (-1 / (ranks * dimensions))
    return np.asarray(within & (ratio <= np.minimum(LEAP, by_chance)), np.bool_)


def _linked(index: _Rows, wanted: _Mask) -> _Rows:
    """Pair rows with their wanted neighbours [n, k], lower row first, [p, 2]."""
    rows, rank = np.nonzero(wanted)
    return np.sort(np.column_stack([rows, index[rows, rank]]), axis=1)


def _is_most_of_a_class(group: _Rows, label_index: _Rows) -> _Mask:
    """Mark rows [n] whose group has more than half of a class."""
    pairs, members = np.unique(np.stack([group, label_index]), axis=1, return_counts=True)
    most = pairs[0][members > np.bincount(label_index)[pairs[1]] / 2]
    return np.isin(group, most)


def _neighbours(embedding: FloatArray, answer: _Rows) -> tuple[FloatArray, FloatArray]:
    """Compute each row's cosine with its nearest and third nearest, else -1."""
    first, third = np.full((2, len(embedding)), -1, np.float32)
    for rows, cosine in cosines(embedding, answer, np.ones(len(embedding), np.bool_)):
        first[rows] = cosine.max(axis=1)
        if len(embedding) > 3:
            third[rows] = np.partition(cosine, -3, axis=1)[:, -3]
    return first, third


def _pairs(rows: _Rows, cosine: FloatArray, third: FloatArray) -> tuple[_Rows, FloatArray]:
    """Pair near rows [p, 2], lower ones in ``rows``, with cosines."""
    near = _is_near(cosine, np.maximum(third[rows][:, None], third[None, :]))
    first, second = np.nonzero(near & (rows[:, None] < np.arange(len(third))))
    return np.column_stack([rows[first], second]), cosine[first, second]


def _pairs_of_neighbours(embedding: FloatArray, answer: _Rows) -> tuple[_Rows, FloatArray]:
    """Pair rows [p, 2] with their nearest, with cosines [p]."""
    index, cosine = nearest(embedding, answer, MOST_NEIGHBOURS)
    third = cosine[:, 2]
    rows, rank = np.nonzero(_is_near(cosine, np.maximum(third[:, None], third[index])))
    others = index[rows, rank]
    order = np.argsort(rows > others, kind="stable")
    pairs = np.sort(np.column_stack([rows, others]), axis=1)[order]
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    return pairs, cosine[rows, rank][order][first]


def _is_near(cosine: FloatArray, third: FloatArray) -> _Mask:
    """Mark near-duplicates; ``third`` is the larger third nearest cosine."""
    return np.asarray((cosine >= SAME) | ((cosine >= LIKE) & (1 - cosine <= STANDS_OUT * (1 - third))), np.bool_)


def _merge(best: Duplicates, pairs: _Rows, cosine: FloatArray, is_holdout: _Mask) -> Duplicates:
    """Merge new pairs: keep the first `MAX_PAIRS`, count all."""
    count, across = best.found + len(pairs), best.across + int(_across(pairs, is_holdout).sum())
    pairs, cosine = np.concatenate([best.pairs, pairs]), np.concatenate([best.cosine, cosine])
    rank = -(cosine + 3 * _across(pairs, is_holdout))  # a cosine is at most 1, so any pair across goes before the rest
    if len(rank) > MAX_PAIRS:
        first = np.argpartition(rank, MAX_PAIRS)[:MAX_PAIRS]
        pairs, cosine, rank = pairs[first], cosine[first], rank[first]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], rank))
    return Duplicates(pairs[order], cosine[order], count, across)


def _across(pairs: _Rows, is_holdout: _Mask) -> _Mask:
    return np.asarray(is_holdout[pairs[:, 0]] != is_holdout[pairs[:, 1]], np.bool_)
