"""Fit of a head: logistic regression with cross-validated strength.

Everything is chosen on the training rows alone. The same rows and seed give the same bytes, whatever their order of
arrival: rows come ordered by hash, folds are a function of it and the seed, and each fold is solved on one thread.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from scipy.optimize import minimize_scalar
from threadpoolctl import threadpool_limits

from regraft.machine import cpu_budget
from regraft.model.artifact import FloatArray, Head
from regraft.model.card import NoveltyMethod
from regraft.progress import Progress, silent
from training.head.additional import Additional
from training.head.balance import Balance, class_weights
from training.head.features import Features
from training.head.folds import deal
from training.head.logistic import Index, Linear, Matrix, Rows, blocks, log_loss, log_softmax, principal_axes, solve
from training.head.novelty import UnseenClassScores, fit_novelty, novelty_threshold

C_GRID: Final = tuple(float(10**exponent) for exponent in np.arange(-4, 2.1, 0.5))
FOLDS: Final = 5
_BEGIN: Final = 2
MOST_FOR_MISSING: Final = 2.0
"""What a row of a class counts at most for pictures of it that are missing: nobody makes a class of a few pictures the
heaviest by sending pictures of it under another label."""
ENOUGH: Final = 10
"""Rows of a class, two a fold, from which on it has a say in what C and temperature are best."""
_PATIENCE: Final = 2
_CLEARLY: Final = 1.01

REFIT_SETTINGS: Final[tuple[str, ...]] = ("balance", "views", "augment", "mirror", "target_error")
"""Settings of a training run that its retrains go by too."""


@dataclass(frozen=True)
class Unseen:
    """Answers on training images by heads that were not fitted on them.

    Attributes:
        rows: int64 [m], rows of ``features.train()``.
        probabilities: float32 [m, K].
        novelty: float32 [m].
    """

    rows: Index
    probabilities: FloatArray
    novelty: FloatArray

    @staticmethod
    def nothing(classes: int) -> "Unseen":
        """Return the answers on no image, for K classes."""
        none = np.empty(0, np.float32)
        return Unseen(np.empty(0, np.int64), np.empty((0, classes), np.float32), none)


@dataclass(frozen=True)
class FittedHead:
    """A fitted head, with the choices behind it.

    Attributes:
        head: temperature already folded in.
        temperature: what the logits were divided by (Guo et al., "On Calibration of Modern Neural Networks", 2017).
        novelty_method: how novelty is measured, see `choose_method`.
        novelty_threshold: 95 % of the out-of-fold training images stay below it.
        choices: for the card: ``c`` (inverse strength of the penalty, on embeddings scaled to unit variance),
            ``cv_accuracy`` and ``cv_log_loss`` (in nats, temperature applied) over the out-of-fold predictions,
            whether classes were ``balanced``, and where pictures were ``missing``, how many of each class.
        unseen: every training image, out of fold.
        left_out: by what the method was chosen, None where there was no choice.
    """

    head: Head
    temperature: float
    novelty_method: NoveltyMethod
    novelty_threshold: float
    choices: dict[str, Any]
    unseen: Unseen
    left_out: UnseenClassScores | None = None

    def holdout_accuracy(self, features: Features) -> float | None:
        """Measure the accuracy on the holdout rows; None where there are none."""
        holdout = features.holdout()
        if not holdout.sha256:
            return None
        return float((self.head.probabilities(holdout.embedding).argmax(axis=1) == holdout.label_index).mean())


def fit(
    features: Features,
    progress: Progress = silent,
    *,
    seed: int = 0,
    balance: Balance = "auto",
    additional: Additional | None = None,
    missing: Mapping[str, int] | None = None,
) -> FittedHead:
    """Fit a head on the training rows of ``features``.

    Embeddings are centred and divided by one common scale, which beat every other scaling and whitening that we tried
    in cross-validation; the affine map is folded back into the head.

    Args:
        features: every label needs at least two training rows.
        progress: told the stage ``fit``.
        seed: deals the rows to the folds.
        balance: ``on`` lets each class weigh the same in the fit, however many rows it has; ``auto`` goes half that way
            where their counts differ much, see `class_weights`. C and the temperature are chosen by the rows as they
            are, those of classes that have `ENOUGH`.
        additional: rows beside them.
        missing: how many training pictures of a class, by its label, were left out that would be there had they borne
            it. The others count for them too, at most `MOST_FOR_MISSING`, as confident learning weighs what is left
            after pruning (Northcutt et al., 2021): else a class would seem as rare as it was made.
    """
    progress("fit", 0, len(C_GRID) + 1)
    learned = np.flatnonzero(~features.is_holdout)  # not ``features.train()``, which copies their embeddings
    y, group, counted = features.label_index[learned], features.group[learned], features.weight[learned]
    whole = _completed(y, features.labels, missing or {})
    share, balanced = class_weights(y, balance, whole)
    shares = share * whole
    folds = deal(y, FOLDS, seed, group)
    beside = additional or Additional.none(features.embedding.shape[1])
    with threadpool_limits(limits=1), ThreadPoolExecutor(1) as aside:
        measuring_novelty = aside.submit(fit_novelty, features.embedding, y, seed, group, learned)
        mean, scale = _mean_and_scale(features.embedding, learned)
        embedding, fitted_rows = _joined(features.embedding, learned, beside.embedding)
        x, rotation = principal_axes(embedding, mean, scale, fitted_rows)
        label_index = np.concatenate([y, beside.label_index])
        weight = np.concatenate([counted, beside.weight]) * shares[label_index]
        rows = Rows(x, label_index, weight, len(features.labels))
        fold_of = np.concatenate([folds, np.where(beside.parent < 0, -1, folds[beside.parent])])
        judged = _judged(y, counted * whole[y])
        chosen = _choose(rows, fold_of, judged, progress)
        logits, c = chosen.logits, C_GRID[chosen.number]
        final = solve(rows, c, _middle(chosen.models))
        novelty = measuring_novelty.result()
    progress("fit", len(C_GRID) + 1, len(C_GRID) + 1)
    temperature = fit_temperature(logits, y, judged)
    coefficients = final.coefficients @ rotation / scale / temperature
    intercepts = final.intercepts / temperature - coefficients @ mean
    return FittedHead(
        Head(
            np.asarray(coefficients, np.float32),
            np.asarray(intercepts, np.float32),
            novelty.prototypes,
            novelty.whitening,
        ),
        temperature,
        novelty.method,
        novelty_threshold(novelty.out_of_fold),
        {
            "c": c,
            "cv_accuracy": float((logits.argmax(axis=1) == y).mean()),
            "cv_log_loss": log_loss(logits / temperature, y, np.ones(len(y))),
            "balanced": balanced,
            **({"missing": dict(missing)} if missing else {}),
        },
        Unseen(
            np.arange(len(y)), np.asarray(np.exp(log_softmax(logits / temperature)), np.float32), novelty.out_of_fold
        ),
        novelty.left_out,
    )


class FittedLike(Protocol):
    """Seed and settings that a head is fitted by.

    A card has them, and so has what a retrain builds on.
    """

    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def settings(self) -> Mapping[str, Any]: ...  # noqa: D102


def refit(
    like: FittedLike,
    features: Features,
    additional: Additional | None,
    progress: Progress = silent,
    *,
    missing: Mapping[str, int] | None = None,
) -> FittedHead:
    """Fit a head by the seed and settings of another; see `fit`.

    ``missing`` are as many as the settings say, unless given.
    """
    balance = like.settings.get("balance", "auto")
    missing = like.settings.get("missing") if missing is None else missing
    return fit(features, progress, seed=like.seed, balance=balance, additional=additional, missing=missing)


def _joined(embedding: FloatArray, learned: Index, additional: FloatArray) -> tuple[FloatArray, Index]:
    """Append additional embeddings, if any; return all with the rows to fit on."""
    if not len(additional):
        return embedding, learned
    return np.concatenate([embedding[learned], additional]), np.arange(len(learned) + len(additional))


def _mean_and_scale(embedding: FloatArray, learned: Index) -> tuple[Matrix, float]:
    """Compute mean [D] and deviation of the rows to fit on, in blocks."""
    count, size = len(learned), embedding.shape[1]
    mean = sum((embedding[learned[b]].sum(axis=0, dtype=np.float64) for b in blocks(count)), np.zeros(size)) / count
    squares = sum(float(np.square(embedding[learned[b]] - mean).sum()) for b in blocks(count))
    return mean, max(float(np.sqrt(squares / (count * size))), 1e-12)


def _completed(label_index: Index, labels: tuple[str, ...], missing: Mapping[str, int]) -> Matrix:
    """Compute the weight [K] of each class's rows, missing ones included."""
    counts = np.bincount(label_index, minlength=len(labels))
    return np.minimum(
        1 + np.array([missing.get(label, 0) for label in labels]) / np.maximum(counts, 1), MOST_FOR_MISSING
    )


def _judged(label_index: Index, weight: Matrix) -> Matrix:
    """Weigh rows [n] for the choice of C and temperature.

    The rows of a class that has too few are answered wrong out of fold whatever is chosen, and would have all others
    answered less surely: five of 250 tripled the calibration error.
    """
    has_enough = np.bincount(label_index) >= ENOUGH
    return weight * has_enough[label_index] if has_enough.sum() > 1 else weight


@dataclass(frozen=True)
class _Step:
    """A step of `C_GRID` with its log loss, logits [m, K] and solutions."""

    number: int
    loss: float
    logits: Matrix
    models: list[Linear]


def _choose(rows: Rows, fold_of: Index, judged: Matrix, progress: Progress) -> _Step:
    """Choose the step of `C_GRID` with the least log loss.

    From strong to weak penalties, so that each fit starts from the one before; to stronger ones only where the first
    was the best. The loss falls and then rises: after one step that is clearly worse, or two without a gain, the others
    are not worth their time.

    Args:
        rows: training rows and additional ones.
        fold_of: int64 [n], the fold that a row is kept out of; -1 for one that all folds learn from.
        judged: float64 [m], what each of the first m rows, which are the training rows, counts in the loss. That is not
            what it counts in the fit: what is chosen should be best for pictures as they come, whatever the balance.
        progress: told the stage ``fit``.
    """
    best: _Step | None = None
    done = 0
    with ThreadPoolExecutor(cpu_budget()) as pool:
        for numbers in (range(_BEGIN, len(C_GRID)), range(_BEGIN - 1, -1, -1)):
            if best and best.number != _BEGIN:
                break
            models = best.models if best else []
            for number in numbers:
                models = _solve_folds(rows, fold_of, C_GRID[number], models, pool)
                logits = _out_of_fold(models, rows.x, fold_of[: len(judged)])
                loss = log_loss(logits, rows.label_index[: len(judged)], judged)
                done += 1
                progress("fit", done, len(C_GRID) + 1)
                if best is None or loss < best.loss:
                    best = _Step(number, loss, logits, models)
                elif abs(number - best.number) >= _PATIENCE or loss > _CLEARLY * best.loss:
                    break
    assert best is not None  # the first step is the best so far
    return best


def _solve_folds(rows: Rows, fold_of: Index, c: float, starts: list[Linear], pool: ThreadPoolExecutor) -> list[Linear]:
    """Solve for each fold without its rows; start at solutions of another c."""

    def solved(fold: int) -> Linear:
        weight = np.where(fold_of == fold, 0, rows.weight)
        start = starts[fold] if starts else None
        return solve(Rows(rows.x, rows.label_index, weight, rows.classes), c, start, exactly=False)

    return list(pool.map(solved, range(int(fold_of.max()) + 1)))


def _out_of_fold(models: list[Linear], x: FloatArray, fold_of: Index) -> Matrix:
    """Predict logits [m, K] of the first m rows out of fold."""
    logits = np.empty((len(fold_of), len(models[0].intercepts)))
    for fold, model in enumerate(models):
        rows = np.flatnonzero(fold_of == fold)
        for block in blocks(len(rows)):
            logits[rows[block]] = model.logits(x[rows[block]])
    return logits


def _middle(models: list[Linear]) -> Linear:
    """Average solutions, to start near the one on all their rows."""
    coefficients = np.mean([model.coefficients for model in models], axis=0)
    return Linear(coefficients, np.mean([model.intercepts for model in models], axis=0))


def fit_temperature(logits: Matrix, y: Index, weight: Matrix) -> float:
    """Fit the temperature of logits [n, K] (Guo et al., 2017)."""

    def loss(log_t: float) -> float:
        return log_loss(logits / np.exp(log_t), y, weight)

    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x))
