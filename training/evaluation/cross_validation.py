"""Cross-validation of a whole strategy, choices and all."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.errors import DatasetError
from regraft.progress import Progress, silent
from training.evaluation.findings import CrossValidation
from training.evaluation.metrics import independent_images, wilson_interval
from training.head.additional import Additional
from training.head.balance import Balance
from training.head.features import Features
from training.head.fit import fit
from training.head.folds import deal
from training.head.logistic import Index

_LEARNED: Final = 2
"""What a fit needs of each class."""


def cross_validate(
    features: Features,
    folds: int,
    *,
    seed: int = 0,
    balance: Balance = "auto",
    additional: Additional | None = None,
    progress: Progress = silent,
) -> CrossValidation:
    """Cross-validate the probe on the training rows of ``features``.

    Args:
        features: what the head is fitted on.
        folds: at least 2.
        seed: deals the rows to these folds, and to those inside each fit.
        balance: see `training.head.fit.fit`.
        additional: rows beside them; a view is kept out with its row.
        progress: told the stage ``cv``.

    Raises:
        DatasetError: a class has fewer training images than there are folds.
    """
    train = features.train()
    fold_of = outer_folds(train.label_index, train.labels, folds, seed, train.group)
    right = np.empty(len(fold_of), np.bool_)
    for fold in range(folds):
        progress("cv", fold, folds)
        in_fold = fold_of == fold
        beside = additional and additional.without_views_of(in_fold)
        fitted = fit(train.select(~in_fold), seed=seed, balance=balance, additional=beside)
        answers = fitted.head.probabilities(train.embedding[in_fold]).argmax(axis=1)
        right[in_fold] = answers == train.label_index[in_fold]
    progress("cv", folds, folds)
    return summarise(fold_of, right, train.group)


def outer_folds(label_index: Index, labels: Sequence[str], folds: int, seed: int, group: Index | None = None) -> Index:
    """Deal rows to stratified folds, int64 [n], unlike those inside a fit.

    Raises:
        DatasetError: a class has too few rows for that, or in too few groups; the text names it.
    """
    counts = np.bincount(label_index, minlength=len(labels))
    fewest = int(counts.argmin())
    if counts[fewest] < folds:
        most = f"use --cv {counts[fewest]} at most, or " if counts[fewest] > _LEARNED else ""
        raise DatasetError(
            f"--cv {folds}: class {labels[fewest]!r} has {counts[fewest]} training images, fewer than folds: {most}"
            "add images"
        )
    fold_of = deal(label_index, folds, int(np.random.SeedSequence([seed, folds]).generate_state(1)[0]), group)
    learned = counts - np.array(
        [np.bincount(label_index[fold_of == fold], minlength=len(labels)) for fold in range(folds)]
    )
    few = int(learned.min(axis=0).argmin())
    if (least := learned[:, few].min()) < _LEARNED:
        raise DatasetError(
            f"--cv {folds}: class {labels[few]!r} has {counts[few]} training images, of which a fold leaves "
            f"{least} to learn from, and it takes {_LEARNED}: add images, or leave --cv out"
        )
    return fold_of


def summarise(fold_of: Index, right: npt.NDArray[np.bool_], group: Index | None = None) -> CrossValidation:
    """Summarise the right answers [n] out of fold; groups count as one."""
    independent = len(right) if group is None else independent_images(group)
    numbers = range(int(fold_of.max()) + 1)
    return CrossValidation(
        folds=tuple(float(right[fold_of == fold].mean()) for fold in numbers),
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(round(float(right.mean()) * independent), independent),
    )
