"""How unlike the training images an image is; the threshold of the card, and how well novelty tells a new class."""

from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from regraft.artifact import FloatArray
from training.features import Features
from training.findings import NoveltyCheck
from training.folds import deal
from training.logistic import Index, Matrix, principal_axes

NOVELTY_QUANTILE: Final = 0.95
CLASS_MEANS: Final = "class means"
"""Cosine distance to the nearest class mean; the method in the file."""
NEIGHBOUR: Final = "5th neighbour"
"""Cosine distance to the fifth nearest training image (Sun et al., 2022)."""
MAHALANOBIS: Final = "Mahalanobis"
"""Distance to the nearest class mean under a covariance that the classes share (Lee et al., 2018), on unit vectors."""

_FOLDS: Final = 2
_MOST_ROWS: Final = 500
_MOST_CLASSES: Final = 10
_NEIGHBOURS: Final = 5
_AXES: Final = 128
_SHRINKAGE: Final = 0.1


def class_directions(embedding: npt.ArrayLike, label_index: Index, classes: int) -> FloatArray:
    """Return each class's mean direction, float32 [K, D], length 1."""
    directions = _unit(embedding)
    means = np.array([directions[label_index == index].mean(axis=0) for index in range(classes)])
    return _unit(means).astype(np.float32)


def novelty_threshold(embedding: npt.ArrayLike, label_index: Index, folds: Index) -> float:
    """Return the novelty that 95 % of images stay below when their own fold did not help to make the class means."""
    novelty = 1 - _likeness_to_means(_unit(embedding), label_index, folds).max(axis=1)
    return float(np.clip(np.quantile(novelty, NOVELTY_QUANTILE), 0, 2))


def check(features: Features, threshold: float, seed: int = 0) -> NoveltyCheck | None:
    """Leave each class out in turn, the ten largest at most, and see whether its images are found to be new.

    Known images are scored out of fold, and those of the class left out against the same rows as they. No more than 500
    rows take part, so that this takes less than a second.

    Args:
        features: of which the training rows are used.
        threshold: the card's.
        seed: draws the rows and deals the folds.

    Returns:
        What was found, or None where fewer than three classes have two rows.
    """
    train = features.train()
    rows = _sample(train.label_index, seed)
    if len(np.unique(train.label_index[rows])) < 3:
        return None
    y = np.unique(train.label_index[rows], return_inverse=True)[1]
    directions, folds = _unit(train.embedding[rows]), deal(y, _FOLDS, seed)
    likeness = _likeness_to_means(directions, y, folds)
    left_out = np.argsort(-np.bincount(y), kind="stable")[:_MOST_CLASSES]
    means = [1 - np.delete(likeness, index, axis=1).max(axis=1) for index in left_out]
    by_method = {
        CLASS_MEANS: means,
        NEIGHBOUR: _to_neighbours(directions, y, folds, left_out),
        MAHALANOBIS: _mahalanobis(directions, y, folds, left_out),
    }
    of_new = np.concatenate([novelty[y == index] for index, novelty in zip(left_out, means, strict=True)])
    return NoveltyCheck(
        auroc={
            name: float(np.mean([roc_auc_score(y == index, s) for index, s in zip(left_out, scores, strict=True)]))
            for name, scores in by_method.items()
        },
        served=CLASS_MEANS,
        threshold=threshold,
        caught=float((of_new > threshold).mean()),
        false_alarms=float((1 - likeness.max(axis=1) > threshold).mean()),
    )


def _sample(label_index: Index, seed: int) -> Index:
    """Return rows, of each class its share, without classes of which only one is left."""
    parts = -(-len(label_index) // _MOST_ROWS)
    rows = np.flatnonzero(deal(label_index, parts, seed) == 0)
    counts = np.bincount(label_index[rows], minlength=int(label_index.max(initial=0)) + 1)
    return np.asarray(rows[counts[label_index[rows]] >= 2])


def _likeness_to_means(directions: Matrix, y: Index, folds: Index) -> Matrix:
    """Return the cosines [n, K] to class means that the row's fold had no part in."""
    classes = int(y.max()) + 1
    likeness = np.empty((len(y), classes))
    for fold in np.unique(folds):
        held = folds == fold
        likeness[held] = directions[held] @ class_directions(directions[~held], y[~held], classes).T
    return likeness


def _to_neighbours(directions: Matrix, y: Index, folds: Index, left_out: Index) -> list[Matrix]:
    likeness = directions @ directions.T
    likeness[folds[:, None] == folds] = -1
    near = [likeness[:, y != index] for index in left_out]
    return [1 - np.partition(rows, -min(_NEIGHBOURS, rows.shape[1]))[:, -_NEIGHBOURS:].min(axis=1) for rows in near]


def _mahalanobis(directions: Matrix, y: Index, folds: Index, left_out: Index) -> list[Matrix]:
    scores = []
    for index in left_out:
        novelty = np.empty(len(y))
        for fold in np.unique(folds):
            known, held = (folds != fold) & (y != index), folds == fold
            mean = directions[known].mean(axis=0)
            axes, rotation = principal_axes(directions[known] - mean)
            seen = (directions[held] - mean) @ rotation[-_AXES:].T
            novelty[held] = _distance(axes[:, -_AXES:].astype(np.float64), y[known], seen)
        scores.append(novelty)
    return scores


def _distance(known: Matrix, y: Index, x: Matrix) -> Matrix:
    """Return the squared Mahalanobis distance [n] to the nearest class mean; the covariance is shrunk to a sphere."""
    labels, y = np.unique(y, return_inverse=True)
    means = np.array([known[y == index].mean(axis=0) for index in range(len(labels))])
    residual = known - means[y]
    covariance = residual.T @ residual / len(residual)
    size = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    precision = np.linalg.inv((1 - _SHRINKAGE) * covariance + _SHRINKAGE * size * np.eye(len(covariance)))
    off = x[:, None] - means
    return np.asarray(np.einsum("nkd,de,nke->nk", off, precision, off, optimize=True).min(axis=1))


def _unit(vectors: npt.ArrayLike) -> Matrix:
    """Return vectors [n, D] of length 1; zeros stay zeros."""
    x = np.asarray(vectors, np.float64)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
