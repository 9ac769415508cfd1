"""The pictures that a network learns from. No torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.dataset import Dataset


@dataclass(frozen=True)
class Sample:
    """One training picture; ``weight`` scales its loss, 0 to 1."""

    path: Path
    sha256: str
    label_index: int
    weight: float = 1.0


def samples_of(dataset: Dataset, *, holdout: bool) -> tuple[Sample, ...]:
    """Return the training pictures, or those of the holdout, by image hash: the order of `Features`."""
    index = {label: position for position, label in enumerate(dataset.labels)}
    images = sorted((image for image in dataset.images if image.is_holdout == holdout), key=lambda image: image.sha256)
    return tuple(Sample(image.path, image.sha256, index[image.label]) for image in images)


def set_aside(label_index: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose the pictures that fine-tuning is stopped and calibrated by, and does not learn from.

    Args:
        label_index: int64 [n].
        share: of each class, 0 to 1; a class of one or two pictures gives none, and none gives all.
        seed: draws them.

    Returns:
        bool [n].
    """
    random = np.random.default_rng(seed)
    chosen = np.zeros(len(label_index), np.bool_)
    for index in np.unique(label_index):
        rows = np.flatnonzero(label_index == index)
        count = 0 if len(rows) < 3 else min(max(1, round(share * len(rows))), len(rows) - 1)
        chosen[random.permutation(rows)[:count]] = True
    return chosen
