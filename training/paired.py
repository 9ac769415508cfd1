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
        accuracy: of the first and of the second; each mean counts a picture as much as it weighs.
    """

    images: int
    gain: float
    error: float
    accuracy: tuple[float, float]

    @property
    def is_better(self) -> bool:
        """Whether the second is surely enough better: less loss by more than the noise, and no less accurate."""
        return self.gain > self.error and self.accuracy[1] >= self.accuracy[0]


def compare(
    first: FloatArray,
    second: FloatArray,
    label_index: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float64] | None = None,
) -> Comparison:
    """Compare probabilities [n, K] of two heads, picture by picture; ``weight`` [n], 1 each unless given."""
    rows = np.arange(len(label_index))
    share = np.full(len(rows), 1 / len(rows)) if weight is None else weight / weight.sum()
    losses = [-np.log(np.maximum(p[rows, label_index].astype(np.float64), 1e-12)) for p in (first, second)]
    gains = losses[0] - losses[1]
    gain, error = float(share @ gains), float("inf")
    if len(gains) > 1:
        error = float(np.sqrt((share**2 @ (gains - gain) ** 2) * len(gains) / (len(gains) - 1)))
    accuracy = tuple(float(share @ (p.argmax(axis=1) == label_index)) for p in (first, second))
    return Comparison(len(rows), gain, error, (accuracy[0], accuracy[1]))
