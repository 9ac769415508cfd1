"""Likely wrong labels and worst mistakes."""

from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.model.artifact import FloatArray

TOP_LOSSES: Final = 24
MIN_CLASS: Final = 5

_Rows = npt.NDArray[np.int64]


def top_losses(probabilities: FloatArray, label_index: _Rows) -> _Rows:
    """Find the `TOP_LOSSES` worst mistakes, the least probable label first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != label_index)
    given = _given(probabilities, label_index)
    return wrong[np.argsort(given[wrong], kind="stable")][:TOP_LOSSES]


def label_errors(probabilities: FloatArray, label_index: _Rows) -> _Rows:
    """Find labels that are likely wrong by confident learning, worst first.

    (Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021.) A class is told
    confidently of a picture where it is as probable as it is, on average, of pictures that bear its label. A label is
    suspect where another class is told confidently, and is the answer. On photographs with a fifth of a batch
    mislabelled, the paper's pruning on top of that found no more wrong labels and marked no fewer right ones.

    Args:
        probabilities: float32 [n, K] of heads that were not fitted on the row.
        label_index: int64 [n], the labels given.

    Returns:
        Rows. Labels of fewer than `MIN_CLASS` rows are passed over: they are too few to show a class.
    """
    classes = probabilities.shape[1]
    counts = np.bincount(label_index, minlength=classes)
    given = _given(probabilities, label_index)
    sums = np.bincount(label_index, weights=given, minlength=classes)
    threshold = np.where(counts >= MIN_CLASS, sums / np.maximum(counts, 1), np.inf)
    confident = np.where(probabilities >= threshold - 1e-6, probabilities, -1)
    confident_label, answer = confident.argmax(axis=1), probabilities.argmax(axis=1)
    suspect = (confident.max(axis=1) >= 0) & (confident_label != label_index) & (answer != label_index)
    rows = np.flatnonzero(suspect & (counts[label_index] >= MIN_CLASS))
    return rows[np.argsort(given[rows], kind="stable")]


def _given(probabilities: FloatArray, label_index: _Rows) -> FloatArray:
    return np.asarray(probabilities[np.arange(len(label_index)), label_index], np.float32)
