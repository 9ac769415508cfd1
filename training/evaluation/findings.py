"""Findings of a training run, as report.html and report.json have them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from regraft.model.artifact import FloatArray
from training.evaluation.data_changes import DataChanges
from training.gate.verdict import Verdict


@dataclass(frozen=True)
class Bin:
    """A bin of predictions: confidence and accuracy, 0 to 1."""

    confidence: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class Reliability:
    """Calibration error of predictions.

    Attributes:
        ece: expected calibration error (Naeini et al., 2015), 0 to 1: mean distance of the two over all images. Of few
            images it is mostly noise.
        bins: of equal width from confidence 0 to 1; one without images is all 0.
        unbiased: root of the mean squared distance without that noise, 0 to 1; see `training.evaluation.calibration`.
        p_value: how often a head whose confidence is its accuracy would look as bad.
    """

    ece: float
    bins: tuple[Bin, ...]
    unbiased: float
    p_value: float


@dataclass(frozen=True)
class Calibration:
    """Reliability on the holdout before and after the temperature."""

    before: Reliability
    after: Reliability


@dataclass(frozen=True)
class Selective:
    """Accuracy of the surest answers on unseen images, by coverage.

    Attributes:
        answered: shares of the images, rising to 1.
        accuracy: of that share whose answers are surest.
        images: how many in all.
    """

    answered: tuple[float, ...]
    accuracy: tuple[float, ...]
    images: int


@dataclass(frozen=True)
class CrossValidation:
    """Accuracy of each fold, predicted by a run without it."""

    folds: tuple[float, ...]
    accuracy: float
    accuracy_interval: tuple[float, float]


@dataclass(frozen=True)
class Picture:
    """One picture of the data.

    Attributes:
        sha256: of its bytes.
        file: where it was found, for people.
        split: ``train`` or ``holdout``.
    """

    sha256: str
    file: str
    split: str
    label: str


@dataclass(frozen=True)
class Judged(Picture):
    """A picture with the answer of a head not fitted on it.

    Attributes:
        probability: of the answer.
        label_probability: of the label; the lower, the more wrong the answer, or the label.
    """

    answer: str
    probability: float
    label_probability: float

    @classmethod
    def of(cls, picture: Picture, labels: Sequence[str], probabilities: FloatArray) -> "Judged":
        """Judge a picture by probabilities [K]."""
        answer = int(probabilities.argmax())
        return cls(
            **vars(picture),
            answer=labels[answer],
            probability=float(probabilities[answer]),
            label_probability=float(probabilities[labels.index(picture.label)]),
        )


@dataclass(frozen=True)
class Pair:
    """Near-duplicates, with the cosine of their centred embeddings."""

    first: Picture
    second: Picture
    cosine: float


@dataclass(frozen=True)
class NoveltyCheck:
    """Detection of images of classes left out, by their novelty.

    Attributes:
        auroc: by method, mean over the classes left out in turn; 0.5 is chance, 1 perfect.
        served: the method in the file.
        threshold: of the card.
        caught: share of images of left-out classes above a threshold that 95 % of the others stay below.
        false_alarms: share of holdout images above the card's threshold; None without holdout.
    """

    auroc: dict[str, float]
    served: str
    threshold: float
    caught: float
    false_alarms: float | None


@dataclass(frozen=True)
class ExtraData:
    """Gain of a second labelled set, by accuracy on the first.

    Attributes:
        images: that joined.
        mean_weight: of them, 0 to 1; 1 without ``--extra-weighting``. Times ``images``: as many as they count for.
        cv_without: cross-validated accuracy without the second set.
        cv_with: with it.
        holdout_without: accuracy on the holdout, None where there is none.
        holdout_with: likewise.
        found: files in the second set, with those that took no part.
        left_out: how many of them took no part, by the reason.
    """

    folder: str
    images: int
    mean_weight: float
    cv_without: float
    cv_with: float
    holdout_without: float | None
    holdout_with: float | None
    found: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StartFinding:
    """Start from the source classifier's rows (``--init source``).

    Attributes:
        matched: label to the source label whose row it took; the others took a mean of rows.
        accuracy: on the images kept for tuning, before any training.
        chance: the share of the commonest class among them.
        replaced_accuracy: likewise, of the fitted head that the rows replace; reports of before do not have it.
    """

    matched: dict[str, str]
    accuracy: float
    chance: float
    replaced_accuracy: float | None = None


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch of fine-tuning.

    Attributes:
        tune_loss: on training images that were set aside for it, as is the accuracy; not a number where none were.
        learning_rate: of the head, at the end of the epoch.
        seconds: of all of it.
        train_accuracy: on the images that were learned from, changed as they were to learn from, while they were.
        backbone_rate: learning rate of the last stage of the backbone.
        images_per_s: learned from.
    """

    number: int
    train_loss: float
    tune_loss: float
    tune_accuracy: float
    learning_rate: float
    seconds: float
    train_accuracy: float = math.nan
    backbone_rate: float = math.nan
    images_per_s: float = math.nan


@dataclass(frozen=True)
class Tuning:
    """A fine-tuning's data, rates and results, as a textbook's table.

    Attributes:
        images: that were learned from in the end.
        set_aside: images that told how many epochs are best; in a small set they were learned from afterwards.
        epochs: that were learned.
        train_accuracy: of the model that came out, on the images that it learned from, as they are served.
        holdout_accuracy: likewise, None without holdout.
        head_rate: peak learning rate.
        backbone_rate: of its last stage.
        first_rate: of the first stage that learns, None where the backbone is frozen.
        frozen: stages of the backbone that do not learn.
        optimizer: with its numbers.
        schedule: of the learning rates.
        batch: images a step.
        augmentation: how images were changed.
        images_per_s: learned from, median of the epochs.
        device: that it ran on.
    """

    images: int
    set_aside: int
    epochs: int
    train_accuracy: float
    holdout_accuracy: float | None
    head_rate: float
    backbone_rate: float
    first_rate: float | None
    frozen: int
    optimizer: str
    schedule: str
    batch: int
    augmentation: str
    images_per_s: float
    device: str


@dataclass(frozen=True)
class SharePoint:
    """Accuracy of heads that learned from a share of the labels.

    Attributes:
        share: 0 to 1.
        labels: how many they are.
        accuracy: over all labelled pictures, each answered by heads that did not learn from it.
        accuracy_interval: 95 %.
    """

    share: float
    labels: int
    accuracy: float
    accuracy_interval: tuple[float, float]


@dataclass(frozen=True)
class Forecast:
    """Accuracy to expect after more labels of the same kind.

    Attributes:
        more: how many labels more.
        accuracy: that will be measured then as it is now, over the old pictures and the new.
        interval: that holds it in 9 of 10 cases.
        gain: in accuracy, beyond what is measured now.
    """

    more: int
    accuracy: float
    interval: tuple[float, float]
    gain: float


@dataclass(frozen=True)
class ClassCurve:
    """Learning curve of a class; its accuracy is its recall."""

    label: str
    images: int
    points: tuple[SharePoint, ...]
    forecasts: tuple[Forecast, ...]


@dataclass(frozen=True)
class LearningCurve:
    """Accuracy against the number of labels, and what more should bring.

    Attributes:
        labels: labelled pictures, held-out ones too.
        points: over all classes, by rising share; none where too few pictures are labelled.
        forecasts: for more and more labels, those that can be told.
        weakest: the classes with the least recall, that one first.
        unknown: what cannot be told and why, sentences without a full stop.
    """

    labels: int
    points: tuple[SharePoint, ...] = ()
    forecasts: tuple[Forecast, ...] = ()
    weakest: tuple[ClassCurve, ...] = ()
    unknown: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Agreement:
    """Agreement of the exported file with torch: logits and answers.

    Attributes:
        logit_spread: between the largest and the smallest logit of torch; reports of before do not say it.
    """

    images: int
    max_logit_difference: float
    same_answer: float
    logit_spread: float = math.nan


@dataclass(frozen=True)
class Findings:
    """All findings; what a run did not look into is None or empty.

    Attributes:
        notes: sentences on what was decided on the way and why.
        top_losses: holdout images that were answered wrong, the least probable label first; the first of them.
        label_errors: training and holdout images whose label is likely wrong, worst first; the first of them.
        label_errors_found: how many there are in all.
        doubted: of a retrain: new labels that heads which did not see the picture disagree with, likely wrong ones
            first; the first of them.
        doubted_found: how many there are in all.
        verdict: of a retrain: what the gate saw.
        changes: of a retrain: what it learned from beyond the version that it competed with.
        duplicates: pairs across the splits first, then the most similar; the first of them.
        duplicates_found: how many there are in all.
        duplicates_across: how many of these have one picture in the holdout and one among the training images.
        train_images: how many there are of each label.
        learning_curve: of heads on the backbone as it is.
    """

    notes: tuple[str, ...] = ()
    calibration: Calibration | None = None
    cross_validation: CrossValidation | None = None
    selective: Selective | None = None
    top_losses: tuple[Judged, ...] = ()
    label_errors: tuple[Judged, ...] = ()
    label_errors_found: int = 0
    duplicates: tuple[Pair, ...] = ()
    duplicates_found: int = 0
    duplicates_across: int = 0
    novelty: NoveltyCheck | None = None
    extra: ExtraData | None = None
    start: StartFinding | None = None
    epochs: tuple[Epoch, ...] = ()
    tuning: Tuning | None = None
    agreement: Agreement | None = None
    doubted: tuple[Judged, ...] = ()
    doubted_found: int = 0
    verdict: Verdict | None = None
    changes: DataChanges | None = None
    train_images: Mapping[str, int] = field(default_factory=dict)
    learning_curve: LearningCurve | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


NOTHING_FOUND: Final = Findings()
"""Of a run that looked into nothing."""
