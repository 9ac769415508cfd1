"""Learning curve of a head, and what more labels should bring."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.label_rules import listed
from training.evaluation.curve.law import forecast
from training.evaluation.curve.shares import SHARES, Outcomes, outcomes
from training.evaluation.findings import ClassCurve, Forecast, LearningCurve, SharePoint
from training.evaluation.metrics import independent_images, wilson_interval
from training.head.balance import Balance
from training.head.features import Features
from training.head.fit import FOLDS

MORE: Final = (50, 100, 200)
"""Labels to come that a forecast is made for."""
_FEWEST: Final = 8 * FOLDS
"""Pictures of which a curve can be drawn: of fewer, a quarter teaches nothing and a fold asks nothing."""
_FARTHEST: Final = 3
"""A law is not asked beyond so many times the labels that there are, in addition to them."""
_WEAKEST: Final = 3
_NAMED: Final = 5


def learning_curve(features: Features, c: float, *, seed: int = 0, balance: Balance = "auto") -> LearningCurve:
    """Draw and forecast the learning curve of heads on embeddings.

    Rows beside the features, such as augmented views, take no part.

    Args:
        features: what there is labelled; held-out pictures are asked, and nothing learns from them.
        c: inverse strength of the penalty that a fit on these features chose.
        seed: deals the folds and draws the shares.
        balance: see `training.head.fit.fit`.
    """
    labels = len(features.sha256)
    counts = np.bincount(features.label_index, minlength=len(features.labels))
    if reason := _too_little(features, counts):
        return LearningCurve(labels, unknown=(reason,))
    found = outcomes(features, c, seed=seed, balance=balance)
    overall = _Asked(found.right, features.group[found.rows], labels)
    of_classes = _by_class(features, found, counts)
    weakest = [
        ClassCurve(features.labels[index], int(counts[index]), asked.points(int(counts[index])), asked.forecasts())
        for index, asked in of_classes
    ]
    weakest.sort(key=lambda entry: (entry.points[-1].accuracy, entry.label))
    return LearningCurve(
        labels, overall.points(labels), overall.forecasts(), tuple(weakest[:_WEAKEST]), _unknown(features, counts)
    )


@dataclass(frozen=True)
class _Asked:
    """Pictures that were asked.

    Attributes:
        right: bool [draws, n, shares].
        group: int64 [n].
        labels: how many there are in all.
    """

    right: npt.NDArray[np.bool_]
    group: npt.NDArray[np.int64]
    labels: int

    @property
    def independent(self) -> int:
        return independent_images(self.group)

    def points(self, labels: int) -> tuple[SharePoint, ...]:
        """Return the points, where all shares together are so many labels."""
        return tuple(
            SharePoint(
                share,
                round(share * labels),
                float(accuracy),
                wilson_interval(round(float(accuracy) * self.independent), self.independent),
            )
            for share, accuracy in zip(SHARES, self.right.mean(axis=(0, 1)), strict=True)
        )

    def forecasts(self) -> tuple[Forecast, ...]:
        """Return the forecasts that can be made."""
        return tuple(
            forecast(self.right, SHARES, self.labels, more, self.independent)
            for more in MORE
            if more <= _FARTHEST * self.labels
        )


def _by_class(features: Features, found: Outcomes, counts: npt.NDArray[np.int64]) -> list[tuple[int, _Asked]]:
    """Return the asked pictures of each class that fills every fold."""
    classes, labels = features.label_index[found.rows], len(features.sha256)
    return [
        (int(index), _Asked(found.right[:, classes == index], features.group[found.rows][classes == index], labels))
        for index in np.flatnonzero(counts >= FOLDS)
    ]


def _too_little(features: Features, counts: npt.NDArray[np.int64]) -> str:
    """Return the reason against a curve, empty if one can be drawn."""
    learned = np.bincount(features.label_index[~features.is_holdout], minlength=len(features.labels))
    classes = int(((counts >= FOLDS) & (learned > 1)).sum())
    if classes >= 2 and counts.sum() >= _FEWEST:
        return ""
    return (
        f"{counts.sum()} pictures are labelled, and {classes} classes have {FOLDS} or more: a learning curve takes "
        f"{_FEWEST}, and two such classes"
    )


def _unknown(features: Features, counts: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """Name the gaps of the curve."""
    sentences = []
    small: Sequence[str] = [label for label, count in zip(features.labels, counts, strict=True) if count < FOLDS]
    if small:
        sentences.append(f"nothing is said of classes with fewer than {FOLDS} pictures: {listed(small, _NAMED)}")
    if far := [more for more in MORE if more > _FARTHEST * counts.sum()]:
        sentences.append(
            f"what {' or '.join(map(str, far))} more labels bring is not told by {counts.sum()}: label some first"
        )
    return tuple(sentences)
