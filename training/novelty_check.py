"""How well novelty tells images of a new class, by the method in the file and by others, for the report."""

from typing import Final

import numpy as np

from regraft.artifact import Head
from regraft.card import NoveltyMethod
from training.features import Features
from training.findings import NoveltyCheck
from training.folds import deal
from training.logistic import Index, Matrix
from training.novelty import METHODS, NOVELTY_QUANTILE, auroc, left_out_scores, most_common, sample, splits, unit

NEIGHBOUR: Final = "5th neighbour"
"""Cosine distance to the fifth nearest training image (Sun et al., 2022); not served, since it takes all of them."""

_FOLDS: Final = 2
_NEIGHBOURS: Final = 5


def check(
    features: Features, head: Head, method: NoveltyMethod, threshold: float, seed: int = 0
) -> NoveltyCheck | None:
    """Leave each class out in turn, the ten largest at most, and see whether its images are found to be new.

    Known images are scored out of fold, and those of the class left out against the same rows as they. No more than 500
    rows take part, so that this takes about a second. Fewer rows give novelty another scale, so what is caught is
    counted at a threshold of their own, set by the card's rule; false alarms are counted on the holdout, which the
    choice of method and threshold has not seen.

    Args:
        features: training rows to leave classes out of, and the holdout.
        head: the one in the file.
        method: by which it measures novelty.
        threshold: the card's.
        seed: draws the rows and deals the folds.

    Returns:
        What was found, or None where fewer than three classes have two rows.
    """
    train = features.train()
    rows = sample(train.label_index, seed)
    if len(np.unique(train.label_index[rows])) < 3:
        return None
    y = np.unique(train.label_index[rows], return_inverse=True)[1]
    x, folds = unit(train.embedding[rows]), deal(y, _FOLDS, seed)
    scores = {name: left_out_scores(name, x, y, folds) for name in METHODS}
    caught = [
        s[y == index] > np.quantile(s[y != index], NOVELTY_QUANTILE)
        for index, s in zip(most_common(y), scores[method], strict=True)
    ]
    of_known = head.novelty(features.holdout().embedding)
    return NoveltyCheck(
        auroc={
            **{name: auroc(each, y) for name, each in scores.items()},
            NEIGHBOUR: auroc(_to_neighbours(x, y, folds), y),
        },
        served=method,
        threshold=threshold,
        caught=float(np.concatenate(caught).mean()),
        false_alarms=float((of_known > threshold).mean()) if len(of_known) else None,
    )


def _to_neighbours(x: Matrix, y: Index, folds: Index) -> list[Matrix]:
    scores = []
    for index in most_common(y):
        novelty = np.empty(len(y))
        for held, known in splits(y, folds, index):
            likeness = x[held] @ x[known].T
            nth = min(_NEIGHBOURS, likeness.shape[1])
            novelty[held] = 1 - np.partition(likeness, -nth, axis=1)[:, -nth]
        scores.append(novelty)
    return scores
