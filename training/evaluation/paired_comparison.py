"""Paired comparison of two heads on the same pictures."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.model.artifact import FloatArray

ENOUGH: Final = 20
"""Of fewer pictures most heads get all right: to be surer of them says nothing of mistakes elsewhere."""
LEVEL: Final = 0.05


@dataclass(frozen=True)
class PairedComparison:
    """Figures of two heads on pictures that neither was fitted on.

    Attributes:
        gain: how much lower the second's log loss is, mean over the pictures, in nats.
        error: its standard error.
        accuracy: of the first and of the second; each mean counts a picture as much as it weighs.
        log_loss: likewise, in nats.
    """

    images: int
    gain: float
    error: float
    accuracy: tuple[float, float]
    log_loss: tuple[float, float]

    @property
    def is_enough(self) -> bool:
        """Sufficiency of the pictures to tell a gain from luck."""
        return self.images >= ENOUGH

    @property
    def is_better(self) -> bool:
        """Superiority of the second head: t test at 5 %, no less accurate."""
        if not self.is_enough or self.accuracy[1] < self.accuracy[0]:
            return False
        from scipy.special import stdtrit  # noqa: PLC0415 - it takes a fifth of a second, which evaluations spare

        return self.gain > float(stdtrit(self.images - 1, 1 - LEVEL)) * self.error


def compare(
    first: FloatArray,
    second: FloatArray,
    label_index: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float64] | None = None,
) -> PairedComparison:
    """Compare probabilities [n, K] of two heads, pictures weighted by [n]."""
    rows = np.arange(len(label_index))
    share = np.full(len(rows), 1 / len(rows)) if weight is None else weight / weight.sum()
    losses = [-np.log(np.clip(p[rows, label_index].astype(np.float64), 1e-12, 1)) for p in (first, second)]
    gains = losses[0] - losses[1]
    gain, error = float(share @ gains), float("inf")
    if len(gains) > 1:
        error = float(np.sqrt((share**2 @ (gains - gain) ** 2) * len(gains) / (len(gains) - 1)))
    right = [float(share @ (p.argmax(axis=1) == label_index)) for p in (first, second)]
    log_loss = float(share @ losses[0]), float(share @ losses[1])
    return PairedComparison(len(rows), gain, error, (min(right[0], 1), min(right[1], 1)), log_loss)
