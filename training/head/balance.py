"""Balance of classes: what their rows weigh in a fit."""

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

UNBALANCED: Final = 1.5
"""``auto`` balances where the largest class has more than so many times the images of the smallest."""

Balance = Literal["auto", "on", "off"]


def class_weights(
    label_index: npt.NDArray[np.int64], balance: Balance, whole: npt.NDArray[np.float64] | None = None
) -> tuple[npt.NDArray[np.float64], bool]:
    """Weigh the rows of each class [K]; tell whether weights differ.

    ``auto`` balances by the square root: so the two pictures of a class that is new count as some twenty of 300, not as
    all of them. Which is enough to be found, and leaves the others' probabilities as they are.

    Args:
        label_index: int64 [n].
        balance: see `training.head.fit.fit`.
        whole: what a row of each class counts for missing ones too [K]; None: only itself.
    """
    counts = np.bincount(label_index) * (1.0 if whole is None else whole)
    if balance == "off" or (balance == "auto" and counts.max() <= UNBALANCED * counts.min()):
        return np.ones(len(counts)), False
    share = counts.max() / counts if balance == "on" else np.sqrt(counts.max() / counts)
    return share / share[label_index].mean(), True
