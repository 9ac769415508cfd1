"""Selective classification: refuses answers so that the rest keep a promise.

The promise: of a further set a quarter as large as the one judged, the usual holdout, at most the target share of the
answers given are wrong, in 19 of 20 such sets. The threshold is the lowest confidence that keeps it, by how often heads
were wrong on pictures that they had not seen (Geifman and El-Yaniv, "Selective Classification for Deep Neural
Networks", 2017, with the beta-binomial distribution of what comes next instead of a bound on the rate alone).
"""

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from regraft.model.artifact import FloatArray
from regraft.model.card import Abstention
from training.evaluation.findings import Selective

if TYPE_CHECKING:  # it takes what scipy.stats takes
    from training.head.features import Features
    from training.head.fit import Unseen

_PART: Final = 4
_DOUBT: Final = 0.05
_NEVER: Final = 1.0
"""No probability exceeds it."""
_CANDIDATES: Final = 500
_POINTS: Final = 20


def choose_threshold(
    probabilities: FloatArray,
    label_index: npt.NDArray[np.int64],
    target_error: float,
    weight: npt.NDArray[np.float64] | None = None,
) -> Abstention:
    """Choose the threshold of an answer's probability.

    Args:
        probabilities: float32 [n, K], of images that the heads had not seen; of near-duplicates one each.
        label_index: int64 [n], the true labels.
        target_error: the share of the answers given that may be wrong, above 0 and below 1.
        weight: float64 [n] above 0, what each image counts; None where all count alike. Images of uneven weight are
            evidence as their effective number is (Kish, "Survey Sampling", 1965).

    Returns:
        The threshold, and what it would have done to these images. Where even the surest answers cannot keep the
        promise, be it that they are too few to show it, none is given.
    """
    from scipy.stats import betabinom  # noqa: PLC0415 - it takes most of a second, which `selective` spares

    confidence, wrong, order = _surest_first(probabilities, label_index)
    counts = np.ones(len(wrong)) if weight is None else weight[order] * (weight.sum() / np.square(weight).sum())
    ends = np.flatnonzero(np.diff(confidence, append=-1.0) < 0) + 1  # equal confidences are answered together or not
    answered = ends[np.unique(np.linspace(0, len(ends) - 1, _CANDIDATES).astype(np.int64))] if len(ends) else ends
    errors, evidence = (np.cumsum(each)[answered - 1] for each in (counts * wrong, counts))
    further = np.ceil(evidence / _PART - 1e-9)
    allowed = np.floor(target_error * further + 1e-9)
    is_kept = betabinom.sf(allowed, further, errors + 1, np.maximum(evidence - errors, 0.5)) <= _DOUBT
    if not is_kept.any():
        return Abstention(target_error=target_error, threshold=_NEVER, answered=0, error=0, images=len(wrong))
    last = int(np.flatnonzero(is_kept)[-1])
    given = int(answered[last])
    lower = confidence[given] if given < len(confidence) else -confidence[-1]  # all answered: the threshold is 0
    return Abstention(
        target_error=target_error,
        threshold=float(confidence[given - 1] + lower) / 2,
        answered=min(float(evidence[last] / counts.sum()), 1.0),
        error=float(errors[last] / evidence[last]),
        images=len(wrong),
    )


def abstention(unseen: "Unseen", features: "Features", target_error: float | None) -> Abstention | None:
    """Choose the abstention threshold by unseen training images, one of each group.

    None without a target. What counts nothing in the fit says nothing here either.
    """
    if target_error is None:
        return None
    rows = np.flatnonzero(~features.is_holdout)[unseen.rows]
    counting = np.flatnonzero(features.weight[rows] > 0)
    one_each = counting[np.unique(features.group[rows[counting]], return_index=True)[1]]
    rows_asked = rows[one_each]
    return choose_threshold(
        unseen.probabilities[one_each], features.label_index[rows_asked], target_error, features.weight[rows_asked]
    )


def selective(probabilities: FloatArray, label_index: npt.NDArray[np.int64]) -> Selective | None:
    """Measure accuracy against coverage; None without images."""
    _, wrong, _ = _surest_first(probabilities, label_index)
    if not len(wrong):
        return None
    shares = np.arange(1, _POINTS + 1) / _POINTS
    given = np.ceil(shares * len(wrong)).astype(np.int64)
    accuracy = 1 - np.cumsum(wrong)[given - 1] / given
    return Selective(tuple(shares.tolist()), tuple(accuracy.tolist()), len(wrong))


def fewest_images(target_error: float) -> int:
    """Return the fewest flawless images that can promise a target error."""
    return _PART * int(np.ceil(1 / target_error - 1e-9)) - _PART + 1


def _surest_first(
    probabilities: FloatArray, label_index: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Sort confidences [n], falling, wrong ones first; add errors and rows."""
    confidence = probabilities.max(axis=1, initial=0).astype(np.float64)
    wrong = probabilities.argmax(axis=1) != label_index
    order = np.lexsort((~wrong, -confidence))
    return confidence[order], wrong[order], order
