"""Check of novelty on classes left out, for the report."""

from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from training.evaluation.findings import NoveltyCheck
from training.head.features import Features
from training.head.fit import FittedHead
from training.head.logistic import Matrix
from training.head.novelty import NOVELTY_QUANTILE, UnseenClassScores, auroc, most_common, splits

NEIGHBOUR: Final = "5th neighbour"
"""Cosine distance to the fifth nearest training image (Sun et al., 2022); not served, since it takes all of them."""

_NEIGHBOURS: Final = 5


def check_novelty(features: Features, fitted: FittedHead) -> NoveltyCheck | None:
    """Check whether images of classes left out are found to be novel.

    Known images were scored out of fold, and those of the class left out against the same rows as they. Few rows give
    novelty another scale, so what is caught is counted at a threshold of their own, set by the card's rule; false
    alarms are counted on the holdout, which the choice of method and threshold has not seen.

    Args:
        features: with the holdout.
        fitted: the head in the file, and what its fit left out.

    Returns:
        What was found, or None where there were too few classes to leave one out.
    """
    left_out, method = fitted.left_out, fitted.novelty_method
    if left_out is None:
        return None
    y = left_out.label_index
    caught = [
        novelty[y == index] > np.quantile(novelty[y != index], NOVELTY_QUANTILE)
        for index, novelty in zip(most_common(y), left_out.novelty[method], strict=True)
    ]
    of_known = fitted.head.novelty(features.holdout().embedding)
    return NoveltyCheck(
        auroc={
            **{name: auroc(each, y) for name, each in left_out.novelty.items()},
            NEIGHBOUR: auroc(_to_neighbours(left_out), y),
        },
        served=method,
        threshold=fitted.novelty_threshold,
        caught=float(np.concatenate(caught).mean()),
        false_alarms=float((of_known > fitted.novelty_threshold).mean()) if len(of_known) else None,
    )


def _to_neighbours(left_out: UnseenClassScores) -> list[Matrix]:
    x, y, scores = left_out.x, left_out.label_index, []
    with threadpool_limits(limits=1):  # small products, that threads would only wait for each other in
        likeness = x @ x.T
    for index in most_common(y):
        novelty = np.empty(len(y))
        for scored, fitted in splits(y, left_out.folds, index):
            near = likeness[np.ix_(scored, fitted)]
            nth = min(_NEIGHBOURS, near.shape[1])
            novelty[scored] = 1 - np.partition(near, -nth, axis=1)[:, -nth]
        scores.append(novelty)
    return scores
