"""Fit a head on embeddings: multinomial logistic regression, its strength chosen by cross-validation.

Everything is chosen on the training rows alone. The same rows give the same bytes, whatever their order of arrival:
rows come ordered by hash, folds are a function of it, and the linear algebra runs on one thread a fold.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from regraft.artifact import FloatArray, Head
from regraft.runtime import cpu_budget
from training.features import Features
from training.progress import Progress, silent

C_GRID: Final = tuple(float(10**exponent) for exponent in np.arange(-3, 1.6, 0.5))
FOLDS: Final = 5
NOVELTY_QUANTILE: Final = 0.95

_Matrix = npt.NDArray[np.float64]
_Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FittedHead:
    """A head, and how it was chosen.

    Attributes:
        head: temperature already folded in.
        c: inverse strength of the L2 penalty, on embeddings scaled to unit variance.
        temperature: what the logits were divided by (Guo et al., "On Calibration of Modern Neural Networks", 2017).
        novelty_threshold: 95 % of the out-of-fold training images stay below it.
        cv_accuracy: accuracy over the out-of-fold predictions.
        cv_log_loss: their mean negative log-likelihood, in nats.
    """

    head: Head
    c: float
    temperature: float
    novelty_threshold: float
    cv_accuracy: float
    cv_log_loss: float


def fit(features: Features, progress: Progress = silent) -> FittedHead:
    """Fit a head on the training rows of ``features``.

    Embeddings are centred and divided by one common scale, which beat a scale for each dimension in cross-validation on
    three of the four photo sets we tried; the affine map is folded back into the head.

    Args:
        features: every label needs at least two training rows.
        progress: told the stage ``fit``.
    """
    train = features.train()
    x, y = train.embedding.astype(np.float64), train.label_index
    mean, scale = x.mean(axis=0), max(float(x.std()), 1e-12)
    folds = assign_folds(y)
    with threadpool_limits(limits=1):
        rotated, rotation = _rotate((x - mean) / scale)
        logits = _out_of_fold_logits(rotated, y, folds, progress)
        losses = [_log_loss(logits[step], y) for step in range(len(C_GRID))]
        best = int(np.argmin(losses))
        temperature = _fit_temperature(logits[best], y)
        coefficients, intercepts = _solve(_regression(C_GRID[best]), rotated, y)
    weight = coefficients @ rotation / scale / temperature
    bias = intercepts / temperature - weight @ mean
    head = Head(_float32(weight), _float32(bias), class_directions(x, y, len(features.labels)))
    return FittedHead(
        head,
        C_GRID[best],
        temperature,
        _novelty_threshold(x, y, folds),
        float((logits[best].argmax(axis=1) == y).mean()),
        _log_loss(logits[best] / temperature, y),
    )


def assign_folds(label_index: _Index) -> _Index:
    """Deal the rows of each class out to folds in turn: `FOLDS` of them, or as many as the smallest class has rows."""
    count = int(min(FOLDS, np.bincount(label_index).min()))
    folds = np.empty(len(label_index), np.int64)
    for index in np.unique(label_index):
        rows = np.flatnonzero(label_index == index)
        folds[rows] = np.arange(len(rows)) % count
    return folds


def class_directions(embedding: _Matrix, label_index: _Index, classes: int) -> FloatArray:
    """Return each class's mean direction, float32 [K, D], length 1."""
    directions = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-12)
    means = np.array([directions[label_index == index].mean(axis=0) for index in range(classes)])
    return _float32(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12))


def _rotate(x: _Matrix) -> tuple[_Matrix, _Matrix]:
    """Express n rows of D numbers in min(n, D) coordinates, which costs less and leaves the L2 penalty as it is."""
    if len(x) >= x.shape[1]:
        return x, np.eye(x.shape[1])
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    return left * singular, right


def _out_of_fold_logits(x: _Matrix, y: _Index, folds: _Index, progress: Progress) -> _Matrix:
    """Return logits [len(C_GRID), n, K], each row predicted by a fit that did not see it."""
    logits = np.empty((len(C_GRID), len(y), int(y.max()) + 1))
    count = int(folds.max()) + 1

    def fit_fold(fold: int) -> None:
        held = folds == fold
        model = _regression(C_GRID[0], warm_start=True)  # from strong to weak: each fit starts from the one before
        for step, c in enumerate(C_GRID):
            model.set_params(C=c)
            coefficients, intercepts = _solve(model, x[~held], y[~held])
            logits[step, held] = x[held] @ coefficients.T + intercepts

    with ThreadPoolExecutor(min(count, cpu_budget())) as pool:
        for done, _ in enumerate(pool.map(fit_fold, range(count)), start=1):
            progress("fit", done, count + 1)
    progress("fit", count + 1, count + 1)
    return logits


def _regression(c: float, *, warm_start: bool = False) -> Any:  # noqa: ANN401 - scikit-learn ships no type information
    return LogisticRegression(C=c, max_iter=2000, warm_start=warm_start)


def _solve(model: Any, x: _Matrix, y: _Index) -> tuple[_Matrix, _Matrix]:  # noqa: ANN401 - as above
    """Fit, and return coefficients [K, d] and intercepts [K]; two classes share what scikit-learn keeps as one row."""
    model.fit(x, y)
    if len(model.classes_) == 2:
        half, offset = model.coef_ / 2, model.intercept_ / 2
        return np.vstack([-half, half]), np.concatenate([-offset, offset])
    return np.array(model.coef_), np.array(model.intercept_)


def _log_loss(logits: _Matrix, y: _Index) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y]))


def _fit_temperature(logits: _Matrix, y: _Index) -> float:
    found = minimize_scalar(lambda log_t: _log_loss(logits / np.exp(log_t), y), bounds=(-2.0, 2.0), method="bounded")
    return float(np.exp(found.x))


def _novelty_threshold(x: _Matrix, y: _Index, folds: _Index) -> float:
    """Return the novelty that 95 % of images stay below when their own fold did not help to make the class means."""
    directions = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    novelty = np.empty(len(y))
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        prototypes = class_directions(x[~held], y[~held], int(y.max()) + 1)
        novelty[held] = 1 - (directions[held] @ prototypes.T).max(axis=1)
    return float(np.clip(np.quantile(novelty, NOVELTY_QUANTILE), 0, 2))


def _float32(array: npt.ArrayLike) -> FloatArray:
    return np.asarray(array, np.float32)
