"""Verdicts of the gate, with every number; plain JSON types in `Verdict.to_dict`."""

from dataclasses import asdict, dataclass
from typing import Any, Final

MOST_SLICES: Final = 50
"""Sources that a verdict tells of: those with the most images."""


@dataclass(frozen=True)
class ClassVerdict:
    """One class on the holdout.

    Shares are from 0 to 1; p values and ``loss_bound`` as in `Verdict`.

    Attributes:
        challenger_old_labels_recall: where the challenger may answer only with labels that the champion has too.
    """

    label: str
    holdout_images: int
    champion_recall: float
    challenger_recall: float
    challenger_old_labels_recall: float
    is_new: bool
    p_value: float
    loss_p_value: float = 1.0
    loss_bound: float = 1.0


@dataclass(frozen=True)
class SliceVerdict:
    """The pictures of one source, holdout and new labels.

    Attributes:
        challenger_old_labels_accuracy: where the challenger may answer only with labels that the champion has too.
        new_images: pictures that are new since the champion, or bear another label now.
        suspects: how many of these labels are likely wrong.
        p_value: as in `Verdict`, as are ``loss_p_value`` and ``loss_bound``.
        suspects_p_value: how likely so many suspects, or more, are if new labels are as often wrong as old ones.
    """

    source: str
    holdout_images: int
    champion_accuracy: float
    challenger_accuracy: float
    challenger_old_labels_accuracy: float
    p_value: float
    new_images: int
    suspects: int
    suspects_p_value: float
    loss_p_value: float = 1.0
    loss_bound: float = 1.0


@dataclass(frozen=True)
class SuspectLabel:
    """A new label that is likely wrong.

    Attributes:
        sha256: of the picture.
        answer: of heads that were not fitted on it.
        probability: of the answer.
        label_probability: of the label.
        source: where the label came from.
    """

    sha256: str
    label: str
    answer: str
    probability: float
    label_probability: float
    source: str


@dataclass(frozen=True)
class AnchorClass:
    """One class on the holdout of the first training; as in `AnchorVerdict`."""

    label: str
    images: int
    best_recall: float
    recall: float
    loss_p_value: float


@dataclass(frozen=True)
class AnchorVerdict:
    """The challenger against the best version so far; see `training.gate.anchor`.

    Attributes:
        loss_p_value: of the hypothesis that all steps together lost no more than they may; adjusted for all classes.
    """

    images: int
    best_accuracy: float
    accuracy: float
    loss_p_value: float
    classes: tuple[AnchorClass, ...]


@dataclass(frozen=True)
class FirstEvidence:
    """The evidence on a version that has no champion before it.

    Attributes:
        images: training images, each answered by a head that was not fitted on it.
        cross_validated_accuracy: on these.
        low: of the interval of that, at 95 % (Wilson, 1927), near-duplicates counted as less than a picture each.
        high: likewise.
        holdout_images: that were held out.
        holdout_accuracy: on these; None where there are none.
        accuracy: on both together, by which the floors are judged.
    """

    images: int
    cross_validated_accuracy: float
    low: float
    high: float
    holdout_images: int
    holdout_accuracy: float | None
    accuracy: float


@dataclass(frozen=True)
class Verdict:
    """The gate's evidence and decision.

    Attributes:
        blessed: whether the challenger may become champion.
        reasons: why not; empty where blessed.
        cautions: what the evidence does not show, blessed or not.
        champion_accuracy: over the whole holdout; images of a class it does not know count as wrong, as they are.
        challenger_accuracy: over the same images.
        champion_known_accuracy: over those images only whose class the champion knows.
        challenger_known_accuracy: over the same images.
        p_value: of McNemar's exact test (1947), two-sided: how likely it is by chance alone that the images on which
            only one of the two is right are divided so unevenly.
        slices: by source, the most images first; the first of them.
        golden_images: pictures that every version has to answer rightly.
        golden_failures: those that the challenger does not.
        new_images: see `SliceVerdict`.
        suspects: likewise.
        suspects_p_value: likewise.
        old_suspect_share: of the labels that the champion had already.
        suspected: the suspects, worst first; the first of them.
        quarantined: how many of the suspects this retrain left out, the first of ``suspected``; see
            `training.retrain.quarantine`.
        in_quarantine: how many labels of the model are left out in all.
        champion_log_loss: mean over the images that both answer rightly, in nats.
        challenger_log_loss: over the same images.
        log_loss_p_value: of the hypothesis that it rises by no more than `training.gate.checks.MAX_LOG_LOSS_RISE`:
            Student's one-sided paired t test.
        champion_calibration_error: of all images whose class the champion knows, the root of
            `training.evaluation.calibration.squared_error`.
        challenger_calibration_error: likewise.
        anchor: the challenger against the best version so far; None where nobody looked.
        loss_p_value: of the hypothesis that accuracy falls by no more than the gate's limit; see
            `training.gate.noninferiority`. Adjusted (Holm) for all classes and sources that are tested beside it.
        loss_bound: the largest loss, a share, that the holdout does not exclude at 95 %.
        first: of a version without a champion before it, on which most of the rest says nothing; else None.
    """

    blessed: bool
    reasons: tuple[str, ...]
    cautions: tuple[str, ...]
    holdout_images: int
    champion_accuracy: float
    challenger_accuracy: float
    champion_known_accuracy: float
    challenger_known_accuracy: float
    p_value: float
    classes: tuple[ClassVerdict, ...]
    slices: tuple[SliceVerdict, ...]
    golden_images: int
    golden_failures: tuple[str, ...]
    new_images: int
    suspects: int
    suspects_p_value: float
    old_suspect_share: float
    suspected: tuple[SuspectLabel, ...] = ()
    loss_p_value: float = 1.0
    loss_bound: float = 1.0
    quarantined: int = 0
    in_quarantine: int = 0
    anchor: AnchorVerdict | None = None
    champion_log_loss: float = 0.0
    challenger_log_loss: float = 0.0
    log_loss_p_value: float = 1.0
    champion_calibration_error: float = 0.0
    challenger_calibration_error: float = 0.0
    first: FirstEvidence | None = None

    @property
    def gain(self) -> str:
        """The gain in accuracy, for the history."""
        if self.first:
            held = self.first.holdout_accuracy
            on_holdout = "" if held is None else f", holdout accuracy {held:.4f} ({self.first.holdout_images} images)"
            return (
                f"first version, cross-validated accuracy {self.first.cross_validated_accuracy:.4f} "
                f"({self.first.low:.3f} to {self.first.high:.3f}, {self.first.images} images){on_holdout}"
            )
        return f"holdout accuracy {self.champion_accuracy:.4f} -> {self.challenger_accuracy:.4f}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)
