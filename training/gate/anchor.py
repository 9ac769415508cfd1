"""Comparison of challengers with the best version so far.

Each retrain is held against the one before, so that many small losses pass one by one. The pictures here are the
holdout of the first training, which new labels never enter; what the best versions answered of them goes from version
to version beside the features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from regraft.errors import ArtifactError
from regraft.stores.labelling.present_names import LabelChange, called_now
from training.gate.noninferiority import Mask, holm, p_value_of_drop, share
from training.gate.verdict import AnchorClass, AnchorVerdict
from training.head.features import Features

TOTAL_DROP: Final = 1.0
"""Percentage points of accuracy that all steps together may lose; a loss beyond has to be shown."""
TOTAL_CLASS_DROP: Final = 5.0
"""Likewise, of recall on any one class."""
_FIELDS: Final = ("sha256", "label", "right", "right_of_class")


@dataclass(frozen=True)
class Anchor:
    """The holdout of the first training, and right answers on it.

    Attributes:
        sha256: hashes of its n pictures.
        label: their labels.
        right: bool [n], by the version that was the best of all.
        right_of_class: bool [n], of each class by the version that was the best on it.
    """

    sha256: tuple[str, ...]
    label: tuple[str, ...]
    right: Mask
    right_of_class: Mask

    @staticmethod
    def begin(features: Features, right: Mask, first: Mask) -> "Anchor":
        """Begin an anchor with a version.

        Args:
            features: of the version.
            right: bool [n], which rows it answers rightly.
            first: bool [n], rows of the first training.
        """
        rows = np.flatnonzero(features.is_holdout & first)
        labels = tuple(features.labels[features.label_index[row]] for row in rows)
        return Anchor(tuple(features.sha256[row] for row in rows), labels, right[rows], right[rows])

    def called_now(self, changes: Sequence[LabelChange]) -> "Anchor":
        """Follow changes of labels; pictures of one that was removed keep it."""
        return replace(self, label=tuple(called_now(label, changes) or label for label in self.label))

    def restricted_to(self, features: Features) -> "Anchor":
        """Drop pictures that were removed, or given another label."""
        holdout = features.holdout()
        labels = dict(zip(holdout.sha256, (holdout.labels[index] for index in holdout.label_index), strict=True))
        rows = [row for row, name in enumerate(self.sha256) if labels.get(name) == self.label[row]]
        return Anchor(
            tuple(self.sha256[row] for row in rows),
            tuple(self.label[row] for row in rows),
            self.right[rows],
            self.right_of_class[rows],
        )

    def compare(self, right: Mask) -> AnchorVerdict:
        """Compare a challenger's right answers [n] with the best."""
        labels = np.array(self.label, np.str_)
        parts = [(labels == label) for label in sorted(set(self.label))]
        p_values = holm(
            [
                p_value_of_drop(self.right, right, TOTAL_DROP),
                *(p_value_of_drop(self.right_of_class[rows], right[rows], TOTAL_CLASS_DROP) for rows in parts),
            ]
        )
        return AnchorVerdict(
            len(right),
            share(self.right),
            share(right),
            p_values[0],
            tuple(
                AnchorClass(
                    str(labels[rows][0]),
                    int(rows.sum()),
                    share(self.right_of_class[rows]),
                    share(right[rows]),
                    p_value,
                )
                for rows, p_value in zip(parts, p_values[1:], strict=True)
            ),
        )

    def updated(self, right: Mask) -> "Anchor":
        """Return the anchor after a version with these right answers [n].

        Of all, and of each class, the better of both stays.
        """
        labels, best = np.array(self.label, np.str_), self.right_of_class.copy()
        for label in set(self.label):
            rows = labels == label
            if right[rows].sum() > best[rows].sum():
                best[rows] = right[rows]
        return Anchor(self.sha256, self.label, right if right.sum() > self.right.sum() else self.right, best)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays to save beside the features, by name."""
        return {f"anchor_{name}": np.array(getattr(self, name)) for name in _FIELDS}


def load_anchor(path: Path) -> Anchor | None:
    """Read the anchor beside a version's features; None where there is none.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if "anchor_sha256" not in file:
                return None
            sha256, label, right, of_class = (file[f"anchor_{name}"] for name in _FIELDS)
            return Anchor(tuple(map(str, sha256)), tuple(map(str, label)), right.astype(bool), of_class.astype(bool))
    except Exception as error:
        raise ArtifactError(f"{path}: cannot read what the best versions answered ({error})") from error
