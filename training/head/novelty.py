"""Novelty of images: method and threshold.

Two methods fit the one formula of `regraft.model.artifact.Head`; see ARCHITECTURE.md for what others were worth.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.stats import rankdata

from regraft.machine import cpu_budget
from regraft.model.artifact import FloatArray, Head
from regraft.model.card import NoveltyMethod
from training.head.folds import deal
from training.head.logistic import Index, Matrix

NOVELTY_QUANTILE: Final = 0.95
CLASS_MEANS: Final[NoveltyMethod] = "class means"
"""Cosine distance to the nearest class mean."""
MAHALANOBIS: Final[NoveltyMethod] = "Mahalanobis cosine"
"""The same where what varies within the classes counts less, by a covariance that they share (Lee et al., 2018)."""
METHODS: Final = (CLASS_MEANS, MAHALANOBIS)

_FOLDS: Final = 2
_MOST_ROWS: Final = 500
_MOST_CLASSES: Final = 10
_FEWEST_CLASSES: Final = 3
_FEWEST_ROWS: Final = 10
"""So many images a class, on average, are needed for a covariance."""
_FEWEST_FOLDS: Final = 5
_MOST_FOLDS: Final = 20
_FOLDED_ROWS: Final = 7200
"""Of all folds together. To what is fitted without a fold, images are newer than to what serves, the more so the fewer
there are: in 5 folds, 360 photographs of flowers were so much newer that half of all windows were called drifted."""
_AXES: Final = 128
_BLOCK: Final = 1024
_SHRINKAGE: Final = 0.1


@dataclass(frozen=True)
class UnseenClassScores:
    """Novelty of training rows with each class left out in turn.

    Attributes:
        x: float32 [m, D], of length 1.
        label_index: int64 [m], 0 to one less than the number of classes that take part.
        folds: int64 [m], by which the rows of known classes are scored out of fold.
        novelty: by method, for each class of `most_common` left out in turn, that of all rows [m].
    """

    x: FloatArray
    label_index: Index
    folds: Index
    novelty: dict[NoveltyMethod, list[Matrix]]


@dataclass(frozen=True)
class FittedNovelty:
    """A fitted measure of novelty.

    Attributes:
        method: see `choose_method`.
        out_of_fold: float32 [n], the novelty of the rows to what was fitted without their fold.
        prototypes: float32 [K, D], see `regraft.model.artifact.Head`.
        whitening: float32 [R, D], likewise.
        left_out: by what the method was chosen, None where there was no choice.
    """

    method: NoveltyMethod
    out_of_fold: FloatArray
    prototypes: FloatArray
    whitening: FloatArray
    left_out: UnseenClassScores | None


def fit_novelty(
    embedding: npt.ArrayLike, label_index: Index, seed: int = 0, group: Index | None = None, rows: Index | None = None
) -> FittedNovelty:
    """Choose a novelty method and fit it; see `leave_classes_out`."""
    left_out = leave_classes_out(embedding, label_index, seed, group, rows)
    method = choose_method(left_out, label_index)
    count = min(max(_FOLDED_ROWS // len(label_index), _FEWEST_FOLDS), _MOST_FOLDS)
    directions = _Directions.of(embedding, rows)
    out_of_fold = _out_of_fold(method, directions, label_index, deal(label_index, count, seed, group))
    parts = _parts(method, directions, label_index, int(label_index.max()) + 1)
    return FittedNovelty(method, out_of_fold, *parts, left_out)


def leave_classes_out(
    embedding: npt.ArrayLike, label_index: Index, seed: int = 0, group: Index | None = None, rows: Index | None = None
) -> UnseenClassScores | None:
    """Score rows by each method with classes left out in turn.

    Some 500 rows and the ten largest classes.

    Args:
        embedding: [n, D], or more.
        label_index: int64 [n].
        seed: draws the rows and deals the folds.
        group: int64 [n], rows that stay in one fold.
        rows: int64 [n], which of the embeddings take part; None for all of them.

    Returns:
        The scores, or None where fewer than three classes have two rows.
    """
    drawn = sample(label_index, seed)
    if len(np.unique(label_index[drawn])) < _FEWEST_CLASSES:
        return None
    y = np.unique(label_index[drawn], return_inverse=True)[1]
    together = None if group is None else group[drawn]
    x, folds = _Directions.of(embedding, rows).some(drawn).all(), deal(y, _FOLDS, seed, together)
    return UnseenClassScores(x, y, folds, {method: _left_out_scores(method, x, y, folds) for method in METHODS})


def choose_method(left_out: UnseenClassScores | None, label_index: Index) -> NoveltyMethod:
    """Choose the method that separates left out classes better, else class means."""
    if left_out is None or len(label_index) < _FEWEST_ROWS * (int(label_index.max()) + 1):
        return CLASS_MEANS
    areas = [auroc(left_out.novelty[method], left_out.label_index) for method in METHODS]
    return METHODS[int(np.argmax(areas))]


def novelty_parts(
    method: NoveltyMethod, embedding: npt.ArrayLike, label_index: Index, classes: int
) -> tuple[FloatArray, FloatArray]:
    """Fit prototypes [K, D] and whitening [R, D], float32, to rows."""
    return _parts(method, _Directions.of(embedding), label_index, classes)


@dataclass(frozen=True)
class _Directions:
    """Rows of embeddings [n, D], normalised block by block."""

    embedding: FloatArray
    rows: Index

    @staticmethod
    def of(embedding: npt.ArrayLike, rows: Index | None = None) -> "_Directions":
        array = np.asarray(embedding)
        return _Directions(array, np.arange(len(array)) if rows is None else rows)

    def some(self, rows: Index) -> "_Directions":
        return _Directions(self.embedding, self.rows[rows])

    def all(self) -> FloatArray:
        return normalised(self.embedding[self.rows])

    def blocks(self) -> Iterator[tuple[slice, FloatArray]]:
        for start in range(0, len(self.rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            yield part, normalised(self.embedding[self.rows[part]])


def _parts(method: NoveltyMethod, directions: _Directions, y: Index, classes: int) -> tuple[FloatArray, FloatArray]:
    means = _class_means(directions, y, classes)
    none = np.zeros((1, means.shape[1]))
    whitening = none if method == CLASS_MEANS else _whitening(directions, means, y)
    image = means + (means @ whitening.T) @ whitening
    length = np.sqrt(np.maximum((means * image).sum(axis=1, keepdims=True), 1e-24))
    return (image / length).astype(np.float32), whitening.astype(np.float32)


def _class_means(directions: _Directions, y: Index, classes: int) -> Matrix:
    means = np.zeros((classes, directions.embedding.shape[1]))
    for part, block in directions.blocks():
        np.add.at(means, y[part], block)
    return np.asarray(means / np.bincount(y, minlength=classes)[:, None])


def novelty_threshold(novelty: npt.ArrayLike) -> float:
    """Return the 95 % quantile of novelties [n] of unseen images."""
    return float(np.clip(np.quantile(np.asarray(novelty), NOVELTY_QUANTILE), 0, 2))


def _out_of_fold(method: NoveltyMethod, directions: _Directions, label_index: Index, folds: Index) -> FloatArray:
    novelty = np.empty(len(label_index), np.float32)

    def fill(fold: int) -> None:
        scored, fitted = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        novelty[scored] = _score(method, directions.some(fitted), label_index[fitted], directions.some(scored))

    with ThreadPoolExecutor(cpu_budget()) as pool:
        list(pool.map(fill, np.unique(folds)))
    return novelty


def _left_out_scores(method: NoveltyMethod, x: FloatArray, y: Index, folds: Index) -> list[Matrix]:
    scores = []
    for index in most_common(y):
        novelty = np.empty(len(y))
        for scored, fitted in splits(y, folds, index):
            labels = np.unique(y[fitted], return_inverse=True)[1]
            novelty[scored] = _score(method, _Directions.of(x[fitted]), labels, _Directions.of(x[scored]))
        scores.append(novelty)
    return scores


def splits(y: Index, folds: Index, left_out: int) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Yield masks [n] of rows to score and rows to fit, for each fold."""
    for fold in np.unique(folds):
        yield folds == fold, (folds != fold) & (y != left_out)


def auroc(scores: list[Matrix], y: Index) -> float:
    """Average the areas under the curve of the classes left out."""
    return float(np.mean([_area(y == index, s) for index, s in zip(most_common(y), scores, strict=True)]))


def _area(positive: npt.NDArray[np.bool_], score: Matrix) -> float:
    """Compute the area under the ROC curve by ranks (scikit-learn loads slowly)."""
    count = int(positive.sum())
    above = rankdata(score)[positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(positive) - count)))


def most_common(y: Index) -> Index:
    """List the classes to leave out: the ten largest at most."""
    return np.argsort(-np.bincount(y), kind="stable")[:_MOST_CLASSES]


def sample(label_index: Index, seed: int) -> Index:
    """Draw some 500 rows, each class its share."""
    parts = -(-len(label_index) // _MOST_ROWS)
    rows = np.flatnonzero(deal(label_index, parts, seed) == 0)
    counts = np.bincount(label_index[rows], minlength=int(label_index.max(initial=0)) + 1)
    return np.asarray(rows[counts[label_index[rows]] >= 2])


def normalised(vectors: npt.ArrayLike) -> FloatArray:
    """Normalise vectors float32 [n, D]; zeros stay zeros."""
    x = np.asarray(vectors, np.float64)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float32)


def _score(method: NoveltyMethod, fitted: _Directions, y: Index, x: _Directions) -> Matrix:
    """Score the novelty [n] of rows to a head of known rows."""
    classes = int(y.max()) + 1
    prototypes, whitening = _parts(method, fitted, y, classes)
    head = Head(prototypes, np.zeros(classes, np.float32), prototypes, whitening)
    return np.concatenate([head.novelty(block) for _, block in x.blocks()]).astype(np.float64)


def _whitening(directions: _Directions, means: Matrix, y: Index) -> Matrix:
    """Compute W [R, D]: I + W'W is the within-class precision, scaled.

    It is measured on the main axes of the directions, not centred: those of the class means are among them. Off them,
    and on the axis that varies most, it is 1: what is not known is not counted as new for being rare.
    """
    axes = _main_axes(directions)
    centres = means @ axes.T
    covariance = np.zeros((len(axes), len(axes)))
    for part, block in directions.blocks():
        residual = block @ axes.T - centres[y[part]]
        covariance += residual.T @ residual / len(y)
    size = float(np.trace(covariance)) / len(covariance)
    variance, turn = np.linalg.eigh((1 - _SHRINKAGE) * covariance + _SHRINKAGE * size * np.eye(len(covariance)))
    gain = np.sqrt(np.maximum(variance[-1] / np.maximum(variance, 1e-12) - 1, 0))
    rows = gain[:, None] * (turn.T @ axes)
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1, keepdims=True), axis=1)
    return np.asarray(np.where(largest < 0, -rows, rows))  # the sign of an eigenvector is arbitrary


def _main_axes(directions: _Directions) -> FloatArray:
    """Compute the main axes [R, D] of the rows, 128 at most."""
    few = len(directions.rows) < directions.embedding.shape[1]  # then the eigenvectors of the smaller of two products
    x = np.concatenate([block for _, block in directions.blocks()]) if few else np.empty((0, 0), np.float32)
    product = np.asarray(x @ x.T if few else sum((block.T @ block for _, block in directions.blocks()), np.float64(0)))
    size = len(product)
    squared, vectors = eigh(product, subset_by_index=(max(0, size - _AXES), size - 1))
    is_significant = squared >= 1e-6 * squared[-1]
    length, vectors = np.sqrt(np.maximum(squared[is_significant], 1e-24)), vectors[:, is_significant]
    return np.asarray((x.T @ vectors / length).T if few else vectors.T)
