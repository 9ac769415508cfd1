"""Training samples of a network. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from training.data.dataset import Dataset
from training.data.groups import group_of_one, rows_by_group, take_groups

_FEWEST: Final = 3


@dataclass(frozen=True)
class Sample:
    """A training picture with the weight of its loss."""

    path: Path
    sha256: str
    label_index: int
    weight: float = 1.0
    group: int = -1
    is_tuning: bool = False


def samples_of(dataset: Dataset, *, holdout: bool) -> tuple[Sample, ...]:
    """List training or holdout samples in the order of `Features`."""
    index = {label: position for position, label in enumerate(dataset.labels)}
    images = sorted((image for image in dataset.images if image.is_holdout == holdout), key=lambda image: image.sha256)
    return tuple(
        Sample(
            image.path,
            image.sha256,
            index[image.label],
            image.weight,
            group_of_one(image.sha256) if image.group < 0 else image.group,
            image.is_tuning,
        )
        for image in images
    )


def set_aside(
    label_index: npt.NDArray[np.int64], share: float, seed: int, group: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.bool_]:
    """Choose samples to stop and calibrate a fine-tuning by.

    Args:
        label_index: int64 [n].
        share: of each class, 0 to 1; a class of one or two pictures gives none, and none gives all.
        seed: draws them.
        group: int64 [n], pictures that stay together; None where none do.

    Returns:
        bool [n].
    """
    total = np.bincount(label_index)
    target = np.where(total < _FEWEST, 0, np.clip(np.round(share * total), 1, np.maximum(total - 1, 1)))
    names = np.arange(len(label_index)) if group is None else group
    groups = [rows for _, rows in rows_by_group(names)]
    shuffled = [groups[number] for number in np.random.default_rng(seed).permutation(len(groups))]
    return take_groups(label_index, shuffled, target.tolist(), leave=1)
