"""Whether a head's probabilities can be taken at their word: of answers given at 80 %, are 80 % right?"""

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.artifact import FloatArray, Head
from training.features import Features
from training.findings import Bin, Calibration, Reliability

BINS: Final = 15


def reliability(probabilities: FloatArray, label_index: npt.NDArray[np.int64], bins: int = BINS) -> Reliability:
    """Compare the probability of the top answer with how often it is right.

    Args:
        probabilities: float32 [n, K].
        label_index: int64 [n], the true labels.
        bins: how many parts of equal width confidence is cut into.
    """
    confidence = np.clip(probabilities.max(axis=1, initial=0).astype(np.float64), 0, 1)
    right = (probabilities.argmax(axis=1) == label_index).astype(np.float64)
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    images = np.bincount(place, minlength=bins)
    divisor = np.maximum(images, 1)
    sure = np.bincount(place, confidence, bins) / divisor
    correct = np.bincount(place, right, bins) / divisor
    ece = float((np.abs(sure - correct) * images).sum() / max(1, len(label_index)))
    return Reliability(
        min(1.0, ece), tuple(Bin(float(s), float(c), int(n)) for s, c, n in zip(sure, correct, images, strict=True))
    )


def calibration(head: Head, temperature: float, features: Features) -> Calibration | None:
    """Compare a head on the holdout with what it was before its temperature was folded in; None without holdout."""
    holdout = features.holdout()
    if not len(holdout.label_index):
        return None
    scale = np.float32(temperature)
    raw = replace(head, weight=head.weight * scale, bias=head.bias * scale)
    before, after = (reliability(each.probabilities(holdout.embedding), holdout.label_index) for each in (raw, head))
    return Calibration(before, after)
