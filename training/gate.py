"""The gate: may the challenger replace the champion? One pure function, every number in its answer."""

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from regraft.artifact import FloatArray

MAX_DROP: Final = 0.5
MAX_CLASS_DROP: Final = 5.0


@dataclass(frozen=True)
class Limits:
    """How much worse the challenger may be, in percentage points.

    Attributes:
        max_drop: of accuracy over the whole holdout.
        max_class_drop: of recall on any one class; one image is always allowed, or a class of ten could lose nothing.
    """

    max_drop: float = MAX_DROP
    max_class_drop: float = MAX_CLASS_DROP


@dataclass(frozen=True)
class ClassVerdict:
    """One class on the holdout; shares 0 to 1."""

    label: str
    holdout_images: int
    champion_recall: float
    challenger_recall: float
    is_new: bool


@dataclass(frozen=True)
class Verdict:
    """What the gate saw, and what it decided.

    Attributes:
        blessed: whether the challenger may become champion.
        reasons: why not; empty where blessed.
        champion_accuracy: over the whole holdout; images of a class it does not know count as wrong, as they are.
        challenger_accuracy: over the same images.
        champion_known_accuracy: over those images only whose class the champion knows.
        challenger_known_accuracy: over the same images.
    """

    blessed: bool
    reasons: tuple[str, ...]
    holdout_images: int
    champion_accuracy: float
    challenger_accuracy: float
    champion_known_accuracy: float
    challenger_known_accuracy: float
    classes: tuple[ClassVerdict, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def judge(
    champion: FloatArray,
    challenger: FloatArray,
    label_index: npt.NDArray[np.int64],
    labels: tuple[str, ...],
    limits: Limits,
) -> Verdict:
    """Judge two heads on the same frozen holdout.

    Args:
        champion: probabilities [n, K_old] over the first K_old labels.
        challenger: probabilities [n, K] over all labels.
        label_index: int64 [n], the true labels.
        labels: K of them; those from K_old on are new to the champion.
        limits: how much worse the challenger may be.
    """
    known_labels = champion.shape[1]
    old_right = champion.argmax(axis=1) == label_index
    new_right = challenger.argmax(axis=1) == label_index
    known = label_index < known_labels
    classes = tuple(
        ClassVerdict(
            label,
            int((label_index == row).sum()),
            _share(old_right[label_index == row]),
            _share(new_right[label_index == row]),
            row >= known_labels,
        )
        for row, label in enumerate(labels)
    )
    verdict = Verdict(
        blessed=False,
        reasons=(),
        holdout_images=len(label_index),
        champion_accuracy=_share(old_right),
        challenger_accuracy=_share(new_right),
        champion_known_accuracy=_share(old_right[known]),
        challenger_known_accuracy=_share(new_right[known]),
        classes=classes,
    )
    reasons = tuple(_objections(verdict, limits))
    return Verdict(**{**verdict.__dict__, "blessed": not reasons, "reasons": reasons})


def _objections(verdict: Verdict, limits: Limits) -> list[str]:
    if verdict.holdout_images == 0:
        return ["there are no holdout images, so nothing shows that the new head is any good"]
    reasons = []
    drop = 100 * (verdict.champion_accuracy - verdict.challenger_accuracy)
    if drop > limits.max_drop + 1e-9:
        reasons.append(
            f"accuracy falls by {drop:.2f} points, from {verdict.champion_accuracy:.4f} to "
            f"{verdict.challenger_accuracy:.4f} on {verdict.holdout_images} holdout images; "
            f"allowed is {limits.max_drop:g}"
        )
    for entry in verdict.classes:
        if entry.is_new and entry.holdout_images == 0:
            reasons.append(
                f"class {entry.label!r} is new and has no holdout images, so nothing shows that it is recognised: "
                "label more of it (about one image in five becomes holdout)"
            )
        elif entry.is_new and entry.challenger_recall == 0:
            reasons.append(
                f"class {entry.label!r} is new, and none of its {entry.holdout_images} holdout images is recognised: "
                "label more of it"
            )
        if entry.holdout_images == 0 or entry.is_new:
            continue
        class_drop = 100 * (entry.champion_recall - entry.challenger_recall)
        allowed = max(limits.max_class_drop, 100 / entry.holdout_images)
        if class_drop > allowed + 1e-9:
            reasons.append(
                f"class {entry.label!r} loses {class_drop:.1f} points of recall, from {entry.champion_recall:.3f} to "
                f"{entry.challenger_recall:.3f} on {entry.holdout_images} holdout images; allowed is {allowed:.1f}"
            )
    return reasons


def _share(right: npt.NDArray[np.bool_]) -> float:
    return float(right.mean()) if len(right) else 0.0
