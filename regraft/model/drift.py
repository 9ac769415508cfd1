"""Drift of pictures: recent answers against the card's reference.

For each figure of an answer, the two-sample Kolmogorov-Smirnov test between the reference of the card and a window of
recent answers. docs/drift.md says how to read the results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import kolmogorov

from regraft.model.artifact import FloatArray
from regraft.model.card import Points, Reference

DISTANCE: Final = "distance"
CONFIDENCE: Final = "confidence"
NOTABLE_KS: Final = 0.15
"""A smaller difference is no drift, however sure: with enough pictures everything differs."""
LEVEL: Final = 0.01
"""The chance of a false alarm of all tests of a window together (Bonferroni)."""

_POINTS: Final = 101
_FEWEST_IMAGES: Final = 20
_MOST_LABELS: Final = 50
_DECIMALS: Final = (4, 3)
"""Decimals of a distance, and of probabilities: the test would find differences too small to be drift."""


@dataclass(frozen=True)
class Shift:
    """The shift of one figure.

    Attributes:
        of: ``distance``, ``confidence``, or a label, whose probability it is.
        ks: the largest difference of the two cumulative distributions, 0 to 1.
        p_value: the chance of such a difference where nothing drifted.
        drifted: it is large, and no accident.
    """

    of: str
    ks: float
    p_value: float
    drifted: bool


def reference_of(
    probabilities: FloatArray,
    novelty: FloatArray,
    labels: Sequence[str],
    source: Literal["holdout", "out of fold"],
) -> Reference | None:
    """Return a card's reference, None of fewer than 20 images.

    Args:
        probabilities: float32 [n, K] of images that the head was not fitted on.
        novelty: float32 [n], of the same images.
        labels: K, in order.
        source: what images these are.
    """
    if len(novelty) < _FEWEST_IMAGES:
        return None
    commonest = np.sort(np.argsort(-probabilities.sum(axis=0), kind="stable")[:_MOST_LABELS])
    distance, confidence, *shares = figures_of(probabilities, novelty, commonest).T
    return Reference(
        source=source,
        images=len(novelty),
        distance=_points(distance),
        confidence=_points(confidence),
        probabilities={labels[index]: _points(share) for index, share in zip(commonest, shares, strict=True)},
    )


def rows_of(reference: Reference, labels: Sequence[str]) -> npt.NDArray[np.intp]:
    """Return the indexes of a reference's labels, for `figures_of`."""
    index = {label: position for position, label in enumerate(labels)}
    return np.array([index[label] for label in reference.probabilities], np.intp)


def figures_of(probabilities: FloatArray, novelty: FloatArray, rows: npt.NDArray[np.intp]) -> FloatArray:
    """Return distance, confidence and C probabilities, float32 [n, 2 + C]."""
    shares = np.column_stack([probabilities.max(axis=1), probabilities[:, rows]])
    return np.column_stack([novelty.round(_DECIMALS[0]), shares.round(_DECIMALS[1])]).astype(np.float32)


def compare(reference: Reference, figures: FloatArray) -> tuple[Shift, ...]:
    """Compare a window's figures with the reference of its card.

    Args:
        reference: of the card.
        figures: those of `figures_of`, of at least one answer.

    Returns:
        Distance and confidence, then the labels of the reference.
    """
    names = (DISTANCE, CONFIDENCE, *reference.probabilities)
    expected = (reference.distance, reference.confidence, *reference.probabilities.values())
    level = LEVEL / len(names)
    shifts = []
    for name, points, sample in zip(names, expected, figures.T, strict=True):
        ks = _ks(np.asarray(points, np.float32), np.sort(sample))
        effective = reference.images * len(sample) / (reference.images + len(sample))
        p_value = float(kolmogorov(np.sqrt(effective) * ks))
        shifts.append(Shift(name, ks, p_value, ks >= NOTABLE_KS and p_value < level))
    return tuple(shifts)


def _points(values: FloatArray) -> Points:
    """Return at most 101 values that stand for all."""
    count = min(_POINTS, len(values))
    middles = (np.arange(count) + 0.5) / count
    chosen = np.quantile(values, middles, method="inverted_cdf")
    return tuple(round(float(value), max(_DECIMALS)) for value in chosen)


def _ks(first: FloatArray, second: FloatArray) -> float:
    """Return the Kolmogorov-Smirnov distance of two ascending samples."""
    values = np.concatenate([first, second])
    below = [np.searchsorted(sample, values, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(below[0] - below[1]).max())
