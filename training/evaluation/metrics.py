"""Metrics of predictions and true labels."""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from regraft.model.artifact import FloatArray
from regraft.model.card import ClassMetrics, Metrics


def measure(
    probabilities: FloatArray,
    label_index: npt.NDArray[np.int64],
    labels: tuple[str, ...],
    group: npt.NDArray[np.int64] | None = None,
) -> Metrics | None:
    """Measure predictions on images not fitted on.

    Args:
        probabilities: float32 [n, K].
        label_index: int64 [n], the true labels.
        labels: K of them.
        group: int64 [n], images that belong together, which tell less than as many that do not; None where none do.

    Returns:
        The metrics, or None where n is 0. Macro F1 is over the classes that have holdout images.
    """
    if len(label_index) == 0:
        return None
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (label_index, predicted), 1)
    right, support, answers = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = right / np.maximum(answers, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + answers, 1)
    correct = int((predicted == label_index).sum())
    independent = len(label_index) if group is None else independent_images(group)
    likelihood = np.maximum(probabilities[np.arange(len(label_index)), label_index], 1e-12)
    return Metrics(
        images=len(label_index),
        accuracy=correct / len(label_index),
        accuracy_interval=wilson_interval(round(correct * independent / len(label_index)), independent),
        macro_f1=float(np.mean(f1[support > 0])),
        log_loss=float(np.mean(-np.log(likelihood.astype(np.float64)))) + 0.0,
        per_class=tuple(
            ClassMetrics(
                label=label,
                precision=float(precision[row]),
                recall=float(recall[row]),
                f1=float(f1[row]),
                support=int(support[row]),
            )
            for row, label in enumerate(labels)
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def independent_images(group: npt.NDArray[np.int64]) -> int:
    """Count images in groups [n] as independent ones (Kish, 1965)."""
    sizes = np.unique(group, return_counts=True)[1]
    return max(1, round(float(sizes.sum() ** 2 / (sizes**2).sum())))


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927); SciPy's loads slowly."""
    share, z2 = correct / images, NormalDist().inv_cdf(0.975) ** 2
    middle, spread = share + z2 / (2 * images), math.sqrt(z2 / images * (share * (1 - share) + z2 / (4 * images)))
    low, high = ((middle + sign * spread) / (1 + z2 / images) for sign in (-1, 1))
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # rounding
