"""What a head is worth: metrics from probabilities and true labels."""

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from regraft.artifact import FloatArray
from regraft.card import ClassMetrics, Metrics


def measure(probabilities: FloatArray, label_index: npt.NDArray[np.int64], labels: tuple[str, ...]) -> Metrics | None:
    """Measure predictions on images that were not fitted on.

    Args:
        probabilities: float32 [n, K].
        label_index: int64 [n], the true labels.
        labels: K of them.

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
    likelihood = np.maximum(probabilities[np.arange(len(label_index)), label_index], 1e-12)
    return Metrics(
        images=len(label_index),
        accuracy=correct / len(label_index),
        accuracy_interval=wilson_interval(correct, len(label_index)),
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


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927)."""
    interval = binomtest(correct, images).proportion_ci(method="wilson")
    return max(0.0, float(interval.low)), min(1.0, float(interval.high))
