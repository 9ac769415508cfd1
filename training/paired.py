"""Two heads on the same pictures, picture by picture."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regraft.artifact import FloatArray


@dataclass(frozen=True)
class Comparison:
    """Two heads on the same pictures, none of which either was fitted on.

    Attributes:
        gain: how much lower the second's log loss is, mean over the pictures, in nats.
        error: its standard error.
        accuracy: of the first and of the second.
    """

    images: int
    gain: float
    error: float
    accuracy: tuple[float, float]

    @property
    def is_better(self) -> bool:
        """Whether the second is surely enough better: less loss by more than the noise, and no less accurate."""
        return self.gain > self.error and self.accuracy[1] >= self.accuracy[0]


def compare(first: FloatArray, second: FloatArray, label_index: npt.NDArray[np.int64]) -> Comparison:
    """Compare probabilities [n, K] of two heads, picture by picture."""
    rows = np.arange(len(label_index))
    losses = [-np.log(np.maximum(p[rows, label_index].astype(np.float64), 1e-12)) for p in (first, second)]
    gains = losses[0] - losses[1]
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else float("inf")
    accuracy = tuple(float((p.argmax(axis=1) == label_index).mean()) for p in (first, second))
    return Comparison(len(rows), float(gains.mean()), error, (accuracy[0], accuracy[1]))
