"""Near copies: pictures that look alike and lie close within their class."""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from regraft.model.artifact import FloatArray
from training.evaluation.duplicates import look_alikes
from training.head.features import Features

NEAR: Final = 0.2
"""The most squared distance of two copies, beside the mean between two pictures of their class."""
CHANCE: Final = 0.01
"""The share of pictures that may have another as near as that without being a copy of it."""
_ENOUGH: Final = 8
"""Pictures that tell how far a class is spread; one of fewer is taken to be as the others are."""
_SAMPLE: Final = 2_000

_Rows = npt.NDArray[np.int64]
_Matrix = npt.NDArray[np.float64]


def near_copies(embedding: FloatArray, classes: _Rows) -> _Rows:
    """Return pairs [p, 2] of pictures that are near copies.

    `look_alikes` compares directions from the middle of a class, which are all alike where a class is small or new. So
    the distance of two has to be small too: at most `NEAR`, and less where pictures differ in so few ways that others
    come as near by chance, as they do after a long fine-tuning.

    Args:
        embedding: float32 [n, D], in the order of the images' hashes.
        classes: int64 [n].
    """
    if len(embedding) < 2:
        return np.empty((0, 2), np.int64)
    pairs = look_alikes(embedding, classes)
    spread, dimensions = _spread(embedding, classes)
    limit = min(NEAR, float(chi2.ppf(CHANCE / len(embedding), dimensions)) / dimensions)
    distance = ((embedding[pairs[:, 0]] - embedding[pairs[:, 1]]).astype(np.float64) ** 2).sum(axis=1)
    near = distance <= limit * 2 * np.minimum(spread[pairs[:, 0]], spread[pairs[:, 1]])
    return np.asarray(pairs[near], np.int64)


def relatives(some: Features, others: Features) -> set[str]:
    """Return hashes of near copies of others, or of their groups, by the same backbone."""
    labels = sorted({*some.labels, *others.labels})
    classes = [labels.index(each.labels[index]) for each in (some, others) for index in each.label_index]
    both = np.concatenate([some.embedding, others.embedding])
    count = len(some.sha256)
    lower, upper = np.sort(near_copies(both, np.array(classes, np.int64)), axis=1).T
    rows = {*lower[(lower < count) & (upper >= count)].tolist(), *np.flatnonzero(np.isin(some.group, others.group))}
    return {some.sha256[row] for row in rows}


def _spread(embedding: FloatArray, classes: _Rows) -> tuple[_Matrix, float]:
    """Return the variance [n] of each row's class, and the effective dimensions.

    Small classes take the variance of all. The dimensions are the participation ratio of the covariance within the
    classes, of a sample.
    """
    present, number, counts = np.unique(classes, return_inverse=True, return_counts=True)
    squares, sample = np.zeros(len(present)), embedding[:_SAMPLE].astype(np.float64)
    for each in range(len(present)):
        rows = embedding[number == each]
        squares[each] = len(rows) * rows.var(axis=0, dtype=np.float64).sum()
        sample[number[:_SAMPLE] == each] -= rows.mean(axis=0, dtype=np.float64)
    overall = squares.sum() / max(len(embedding) - len(present), 1)
    own = squares / np.maximum(counts - 1, 1)
    gram = sample @ sample.T if len(sample) < sample.shape[1] else sample.T @ sample
    dimensions = max(float(np.trace(gram) ** 2 / max((gram**2).sum(), 1e-300)), 1.0)
    return np.asarray(np.where(counts >= _ENOUGH, own, overall)[number], np.float64), dimensions
