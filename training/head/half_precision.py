"""Half-precision embeddings of large data sets.

The file has half the size, and a head is fitted on exactly what is kept.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from regraft.model.artifact import FloatArray
from training.head.features import Features
from training.head.fit import FittedHead
from training.head.logistic import blocks

WORTH_IT: Final = 4096
"""Rows from which on the size of the file matters."""
MOST_DIFFERENCE: Final = 8e-4
"""Of a probability, between exact and rounded embeddings; the proof of the file allows 1e-3 for all that differs."""
_SAMPLE: Final = 512


def fit_in_half(
    features: Features, fit: Callable[[Features], FittedHead], restore: Callable[[Features], None]
) -> FittedHead:
    """Fit a head on float16 embeddings where there are many.

    Args:
        features: exact; where there are many, they are rounded in place, since two of them may not fit into memory.
            Afterwards they are what the head was fitted on.
        fit: fits a head.
        restore: makes them exact again in place, for a head that tells rounded embeddings from exact ones.
    """
    if len(features.sha256) < WORTH_IT or _largest(features.embedding) > float(np.finfo(np.float16).max):
        return fit(features)
    before = features.embedding[:_SAMPLE].copy()
    _round(features.embedding)
    fitted = fit(features)
    answers = [fitted.head.probabilities(rows) for rows in (before, features.embedding[:_SAMPLE])]
    if np.abs(answers[0] - answers[1]).max() <= MOST_DIFFERENCE:
        return fitted
    restore(features)
    return fit(features)


def _largest(embedding: FloatArray) -> float:
    """Return the largest absolute value, without a copy."""
    return max(float(embedding.max()), -float(embedding.min()))


def _round(embedding: FloatArray) -> None:
    """Round to what float16 can hold, in place."""
    for block in blocks(len(embedding)):
        embedding[block] = embedding[block].astype(np.float16)
