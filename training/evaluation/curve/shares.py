"""Accuracy of heads on nested shares of the labels, out of fold."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from regraft.machine import cpu_budget
from regraft.model.artifact import FloatArray
from training.data.subsets import stratified_order
from training.head.balance import Balance, class_weights
from training.head.features import Features
from training.head.fit import C_GRID, FOLDS
from training.head.folds import deal
from training.head.logistic import Index, Linear, Matrix, Rows, principal_axes, solve

SHARES: Final = (0.25, 0.5, 0.75, 1.0)
_AXES: Final = 256
"""Main axes of the embeddings; on more of them heads are no better, and take longer."""
_WEAKEST: Final = 1.0
"""The weakest penalty: with weaker ones heads answer alike here, and take twice as long."""
_MOST_DRAWS: Final = 6
_A_DRAW: Final = 25
"""Pictures that make another draw worth its time."""
_WORK: Final = 20_000
"""Pictures that heads learn from, over all folds and draws: a second or two on two CPUs."""


@dataclass(frozen=True)
class Outcomes:
    """Answers to pictures by heads on shares of the others.

    Attributes:
        rows: int64 [m], rows of the features that were asked; of a large set only some are.
        right: bool [draws, m, shares].
    """

    rows: Index
    right: npt.NDArray[np.bool_]


def outcomes(features: Features, c: float, *, seed: int = 0, balance: Balance = "auto") -> Outcomes:
    """Fit heads on nested stratified shares, and ask them their folds.

    A draw deals all pictures to folds, and orders them; the heads of a fold learn from the first 25, 50, 75 and 100 %
    of the training pictures outside it, each beginning at the solution of the one before. So every point of the curve
    is about the same pictures, held-out ones too, which nothing learns from.

    Args:
        features: at least two classes.
        c: inverse strength of the penalty, see `training.head.fit.fit`; one for all shares, since it is in the unit of
            a sum over pictures.
        seed: deals and orders.
        balance: see `training.head.fit.fit`.
    """
    folds = _folds(features, seed)
    draws = max(fold.draw for fold in folds) + 1
    right = np.zeros((draws, len(features.sha256), len(SHARES)), np.bool_)
    with threadpool_limits(limits=1), ThreadPoolExecutor(cpu_budget()) as pool:
        fits = _Fits(features, _main_axes(features), min(c, _WEAKEST), balance)
        for fold, answers in zip(folds, pool.map(fits.along, folds), strict=True):
            right[fold.draw, fold.asked] = answers
    rows = np.unique(np.concatenate([fold.asked for fold in folds]))
    return Outcomes(rows, right[:, rows])


@dataclass(frozen=True)
class _Fold:
    """A fold of a draw: rows to learn from, rows to ask."""

    draw: int
    learned: Index
    asked: Index


def _folds(features: Features, seed: int) -> list[_Fold]:
    """Return the folds of the draws that the work allows.

    There is at least one draw, of which a large set takes only some folds.
    """
    most = max(1, _WORK // max(1, int((~features.is_holdout).sum())))
    draws = max(1, min(_MOST_DRAWS, most // FOLDS, max(2, len(features.sha256) // _A_DRAW)))
    folds: list[_Fold] = []
    for draw in range(draws):
        of_draw = int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])
        fold_of = deal(features.label_index, FOLDS, of_draw, features.group)
        order = stratified_order(features.label_index, of_draw)
        for fold in range(min(FOLDS, most)):
            learned = order[(fold_of[order] != fold) & ~features.is_holdout[order]]
            folds.append(_Fold(draw, _together(learned, features.group), np.flatnonzero(fold_of == fold)))
    return folds


def _together(rows: Index, group: Index) -> Index:
    """Move the rows of a group to its first one.

    More of a burst would teach little.
    """
    _, first, number = np.unique(group[rows], return_index=True, return_inverse=True)
    return rows[np.argsort(first[number], kind="stable")]


@dataclass(frozen=True)
class _Fits:
    """Fits of heads on turned embeddings ``x``."""

    features: Features
    x: FloatArray
    c: float
    balance: Balance

    def along(self, fold: _Fold) -> npt.NDArray[np.bool_]:
        """Fit along the shares of a fold; return right answers [asked, shares]."""
        truth = self.features.label_index
        right = np.zeros((len(fold.asked), len(SHARES)), np.bool_)
        head: Linear | None = None
        for number, share in enumerate(SHARES):
            rows = self._rows(fold.learned[: max(1, round(share * len(fold.learned)))])
            if head is None:  # from strong to weak penalties: a rough solution is one only where it begins near
                for c in (step for step in C_GRID[2:] if step < self.c):
                    head = solve(rows, c, head, exactly=False)
            head = solve(rows, self.c, head, exactly=False)
            right[:, number] = head.logits(self.x[fold.asked]).argmax(axis=1) == truth[fold.asked]
        return right

    def _rows(self, learned: Index) -> Rows:
        classes = len(self.features.labels)
        truth = self.features.label_index[learned]
        weight = self.features.weight[learned] * _class_weights(truth, self.balance)
        return Rows(self.x[learned], truth, weight, classes)


def _class_weights(label_index: Index, balance: Balance) -> Matrix:
    """Weigh rows [n] as a fit on them would.

    Its own function takes classes without a gap; a share may lack one.
    """
    _, index = np.unique(label_index, return_inverse=True)
    return class_weights(index, balance)[0][index]


def _main_axes(features: Features) -> FloatArray:
    """Turn all embeddings [n, D] onto their main axes, centred and scaled."""
    embedding = features.embedding
    mean = embedding.mean(axis=0, dtype=np.float64)
    scale = max(float(np.sqrt(np.mean(np.square(embedding - mean)))), 1e-12)
    turned, _ = principal_axes(embedding, mean, scale)
    return np.ascontiguousarray(turned[:, -_AXES:])  # the axes come in the order of their variance
