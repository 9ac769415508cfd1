"""Calibration of a head's probabilities.

The expected calibration error of few images is mostly the noise of its bins, and never 0. `squared_error` has no such
bias, and `p_value` says how often a head that means what it says would look as bad.
"""

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.model.artifact import FloatArray, Head
from training.evaluation.findings import Bin, Calibration, Reliability
from training.head.features import Features

BINS: Final = 15
_FEWEST: Final = 20
"""Images in a bin of equal counts, of which there are `BINS` at most."""
_DRAWS: Final = 999
_AT_ONCE: Final = 1_000_000
_ROUNDING: Final = 1e-12
_MOST_DRAWN: Final = 20_000_000
"""Images that are drawn in all: a holdout that is very large needs fewer draws to be told from a calibrated one."""


def reliability(probabilities: FloatArray, label_index: npt.NDArray[np.int64], bins: int = BINS) -> Reliability:
    """Bin top answers of probabilities [n, K] by confidence, against accuracy."""
    confidence, right = _answers(probabilities, label_index)
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    images = np.bincount(place, minlength=bins)
    divisor = np.maximum(images, 1)
    sure = np.bincount(place, confidence, bins) / divisor
    correct = np.bincount(place, right, bins) / divisor
    ece = float((np.abs(sure - correct) * images).sum() / max(1, len(label_index)))
    return Reliability(
        min(1.0, ece),
        tuple(Bin(float(s), float(c), int(n)) for s, c, n in zip(sure, correct, images, strict=True)),
        max(0.0, squared_error(probabilities, label_index)) ** 0.5,
        p_value(probabilities, label_index),
    )


def squared_error(probabilities: FloatArray, label_index: npt.NDArray[np.int64]) -> float:
    """Estimate the squared calibration error without bias (Kumar et al., 2019).

    It is the mean squared difference of confidence and accuracy, over bins of equal counts, less what chance alone adds
    to it. So it is around 0 for a calibrated head, below it as often as above: average it before taking its root.
    """
    confidence, right = _answers(probabilities, label_index)
    order = np.argsort(confidence, kind="stable")
    return float(_squared_errors((right - confidence)[None, order])[0])


def p_value(probabilities: FloatArray, label_index: npt.NDArray[np.int64]) -> float:
    """Test whether confidence is accuracy (Broecker and Smith, 2007).

    A bootstrap: how often a head that is as sure, and right as often as it says, has at least this squared error.
    """
    confidence, right = _answers(probabilities, label_index)
    if len(right) < 2:
        return 1.0
    order, random = np.argsort(confidence, kind="stable"), np.random.default_rng(0)
    sure = confidence[order]
    error = _squared_errors((right[order] - sure)[None])[0]
    draws, at_once = min(_DRAWS, max(99, _MOST_DRAWN // len(right))), max(1, _AT_ONCE // len(right))
    worse = 0
    for begin in range(0, draws, at_once):
        calibrated = random.random((min(at_once, draws - begin), len(right))) < sure
        worse += int((_squared_errors(calibrated - sure) >= error - _ROUNDING).sum())
    return (worse + 1) / (draws + 1)


def _answers(
    probabilities: FloatArray, label_index: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return confidence and correctness (1 or 0) of the top answers, both [n]."""
    confidence = np.clip(probabilities.max(axis=1, initial=0).astype(np.float64), 0, 1)
    return confidence, (probabilities.argmax(axis=1) == label_index).astype(np.float64)


def _squared_errors(difference: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Compute the squared errors of m samples of n sorted differences, [m, n].

    Of each bin of equal counts, it is the square of its mean less the variance of that mean.
    """
    samples, images = difference.shape
    if images < 2:
        return np.zeros(samples)
    bins = min(BINS, max(1, images // _FEWEST))
    begin = np.arange(bins) * images // bins
    counts = np.diff(np.append(begin, images))
    squared_sum = np.square(np.add.reduceat(difference, begin, axis=1)) / counts
    variance = (np.add.reduceat(np.square(difference), begin, axis=1) - squared_sum) / (counts - 1)
    return np.asarray((squared_sum - variance).sum(axis=1) / images)


def calibration(head: Head, temperature: float, features: Features) -> Calibration | None:
    """Compare calibration before and after the temperature, on the holdout."""
    holdout = features.holdout()
    if not len(holdout.label_index):
        return None
    scale = np.float32(temperature)
    raw = replace(head, weight=head.weight * scale, bias=head.bias * scale)
    before, after = (reliability(each.probabilities(holdout.embedding), holdout.label_index) for each in (raw, head))
    return Calibration(before, after)
