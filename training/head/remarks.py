"""Remarks on a fitted head, for its report."""

from typing import Final

import numpy as np

from regraft.model.card import Abstention, Metrics
from training.evaluation.findings import CrossValidation, StartFinding
from training.evaluation.metrics import measure, wilson_interval
from training.head.abstention import abstention, fewest_images
from training.head.features import Features
from training.head.fit import C_GRID, FittedHead

_INSTEAD: Final = "Leave out --weights none to begin with what ImageNet taught, or take --strategy scratch as control."
_NOTHING_TRANSFERRED: Final = {
    "probe": f"Nothing is transferred: the head was fitted on what random weights make of the pictures. {_INSTEAD}",
    "finetune": f"Nothing is transferred: random weights were tuned by rates meant for trained ones. {_INSTEAD}",
}


def remarks(
    fitted: FittedHead,
    features: Features,
    cross_validation: CrossValidation | None = None,
    target_error: float | None = None,
) -> tuple[str, ...]:
    """Return remarks on a head, by holdout and cross-validation."""
    rows = features.holdout()
    holdout = measure(fitted.head.probabilities(rows.embedding), rows.label_index, features.labels, rows.group)
    validation = cross_validation or out_of_fold(fitted, features)
    sentences = [_end_of_grid(fitted), _apart(holdout, validation) if holdout and validation else ""]
    sentences.append(_unkept(abstention(fitted.unseen, features, target_error)))
    return tuple(filter(None, sentences))


def remarks_on_transfer(
    weights: str, strategy: str, near_duplicates: int, start: StartFinding | None
) -> tuple[str, ...]:
    """Return remarks on what backbone and source classifier brought."""
    is_random = weights.startswith("random,")
    sentences = []
    if is_random and strategy != "scratch":
        sentences.append(_NOTHING_TRANSFERRED[strategy])
    if is_random and near_duplicates:
        sentences.append(
            f"{near_duplicates} pairs look like near-duplicates to a network that began with random weights, to which "
            "pictures that differ look alike: look at them before you remove any, or ask a pretrained one."
        )
    if start and start.replaced_accuracy is not None:
        sentences.append(_replaced(start.accuracy, start.replaced_accuracy))
    return tuple(sentences)


def _replaced(source: float, fitted: float) -> str:
    better = "; --init head begins better" if fitted > source else ""
    return (
        f"Before any training the source classifier's rows are right on {source:.1%} of the images set aside, the "
        f"fitted head that they replace on {fitted:.1%}{better}."
    )


def _end_of_grid(fitted: FittedHead) -> str:
    c = fitted.choices.get("c")
    if c not in (C_GRID[0], C_GRID[-1]):
        return ""
    if c == C_GRID[-1]:
        return (
            f"C stands at the weak end of its grid ({c:g}): the classes are told apart without effort, or some of the "
            "pictures are nearly the same."
        )
    return (
        f"C stands at the strong end of its grid ({c:g}): hardly anything in the embeddings tells the classes apart. "
        "Look at the labels, or take another backbone."
    )


def _unkept(promise: Abstention | None) -> str:
    if promise is None or promise.answered:
        return ""
    return (
        f"No threshold keeps to a target error of {promise.target_error:.1%}, so every answer is marked as declined: "
        f"it takes {fewest_images(promise.target_error)} images or more that were not learned from and answered "
        f"without a mistake, and there are {promise.images} in all. Ask for less, or label more."
    )


def out_of_fold(fitted: FittedHead, features: Features) -> CrossValidation | None:
    """Measure the accuracy on training images, out of fold; None without any."""
    rows = fitted.unseen.rows
    if not len(rows):
        return None
    right = fitted.unseen.probabilities.argmax(axis=1) == features.train().label_index[rows]
    return CrossValidation((), float(right.mean()), wilson_interval(int(np.count_nonzero(right)), len(rows)))


def _apart(holdout: Metrics, validation: CrossValidation) -> str:
    """Say where two 95 % intervals of the accuracy do not overlap."""
    intervals = holdout.accuracy_interval, validation.accuracy_interval
    if intervals[0][0] <= intervals[1][1] and intervals[1][0] <= intervals[0][1]:
        return ""
    figures = [
        f"{accuracy:.1%} ({low:.1%} to {high:.1%})"
        for accuracy, (low, high) in zip((holdout.accuracy, validation.accuracy), intervals, strict=True)
    ]
    easier = "easier" if holdout.accuracy > validation.accuracy else "harder"
    return (
        f"The holdout is {easier} than the training images: accuracy {figures[0]} there, {figures[1]} in "
        "cross-validation, and the intervals do not overlap. Do not take either for the accuracy on new pictures "
        "before you know why."
    )
