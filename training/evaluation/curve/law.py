"""Inverse power laws of a head's error, and their forecasts.

The error of a classifier falls about as ``floor + reach * labels ** -rate`` (Cortes et al., "Learning curves:
asymptotic values and rate of convergence", 1993; Hestness et al., "Deep learning scaling is predictable, empirically",
2017). Four points leave much of that open, so no single law is fitted: laws are drawn from a prior, each weighs as much
as it makes the points likely, and the forecast is what all of them say together.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtr, ndtri

from training.evaluation.findings import Forecast
from training.head.logistic import Matrix

CONFIDENCE: Final = 0.9
"""Of a forecast: the share of the cases in which its interval holds what is measured then."""
_LAWS: Final = 1024
_RATE, _RATE_SPREAD = 0.5, 0.6
"""Median of the rate, and deviation of its logarithm: rates found by experiment lie between 0.1 and 1, mostly."""
_EVENLY: Final = 1.2207440846057596 ** -np.arange(1, 4)
"""Steps of a sequence that fills a cube (Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018)."""
_LEAST_SPREAD: Final = 0.5
"""Deviation of a difference of two points, in pictures: where they are equal, it was not measured that exactly."""
_FLIPS: Final = 3
"""Pictures that may change by chance although none did: the rule of three (Hanley and Lippman-Hand, 1983)."""
_GRID: Final = 256


def forecast(
    right: npt.NDArray[np.bool_], shares: Sequence[float], labels: int, more: int, independent: int
) -> Forecast:
    """Forecast the accuracy after ``more`` labels, drawn as those so far.

    All points of the curve are about the same pictures, so their differences are known better than their height. What
    is measured then is the mean over these pictures, by heads that learned from more, and over the new ones. The
    interval allows for what is open about the law, for the height, for answers that change by chance, and for the new
    pictures being few.

    Args:
        right: bool [draws, n, shares], the answers of heads of each share.
        shares: of the labels that they learned from, rising to 1.
        labels: how many there are now; n of them, such as those of a class, are asked.
        more: at least 1.
        independent: how many independent pictures these n tell as much as.
    """
    accuracy = float(right[..., -1].mean())
    often = right.mean(axis=0)
    changes = often[:, -1:] - often[:, :-1]
    growth, new = 1 + more / labels, more / (labels + more)
    laws = _Laws.drawn(accuracy, independent)
    weight = laws.weights(changes.mean(axis=0), _covariance(changes, independent), np.array(shares[:-1]))
    then = laws.error(np.array([growth]))[:, 0]
    by_chance = _change_by_growth(changes, shares, growth) + _change_by_folds(right) + _FLIPS / independent
    middle = (1 - new) * (accuracy + laws.now - then) + new * (1 - then)
    spread = np.sqrt(
        (1 - new) ** 2 * by_chance / independent + new**2 * then * (1 - then) / (independent * more / labels)
    )
    low, high = _interval(middle, spread, weight)
    expected = float(np.clip(weight @ middle, 0, 1))
    return Forecast(more, expected, (min(low, expected), max(high, expected)), expected - accuracy)


class _Laws:
    """Laws of the error by growth of the labels.

    Growth is the number of labels in parts of those now.
    """

    def __init__(self, now: Matrix, floor: Matrix, rate: Matrix) -> None:
        """Make laws of errors now and at infinity, and rates, each [laws]."""
        self.now, self._floor, self._rate = now, floor, rate

    @staticmethod
    def drawn(accuracy: float, count: int) -> "_Laws":
        """Draw laws whose error now is as was measured on ``count`` pictures."""
        height, floor, rate = (0.5 + np.outer(_EVENLY, np.arange(_LAWS))) % 1
        floor = 1 - np.sqrt(1 - floor)  # lower ones are likelier: few labels are far from what many can do
        now = betaincinv(count * (1 - accuracy) + 0.5, count * accuracy + 0.5, height)
        return _Laws(now, now * floor, _RATE * np.exp(_RATE_SPREAD * ndtri(rate)))

    def error(self, growth: Matrix) -> Matrix:
        """Return the errors [laws, growths]."""
        return self._floor[:, None] + (self.now - self._floor)[:, None] * growth ** -self._rate[:, None]

    def weights(self, gained: Matrix, covariance: Matrix, shares: Matrix) -> Matrix:
        """Weigh the laws by the likelihood of the gains since each share."""
        off = gained - (self.error(shares) - self.now[:, None])
        squares = np.einsum("ls,st,lt->l", off, np.linalg.inv(covariance), off)
        weight = np.exp((squares.min() - squares) / 2)
        return np.asarray(weight / weight.sum())


def _covariance(changes: Matrix, count: int) -> Matrix:
    """Return the covariance of the means of changes [n, shares - 1]."""
    least = np.eye(changes.shape[1]) * (_LEAST_SPREAD / count) ** 2
    return np.atleast_2d(np.cov(changes.T)) / count + least


def _change_by_growth(changes: Matrix, shares: Sequence[float], growth: float) -> float:
    """Return the variance of a picture's change where labels grow so much."""
    grown, variance = -np.log(shares[:-1]), changes.var(axis=0)
    return float(np.interp(np.log(growth), [0, *grown[::-1]], [0, *variance[::-1]]))


def _change_by_folds(right: npt.NDArray[np.bool_]) -> float:
    """Return the variance of a picture's change by other folds.

    Other folds are dealt when there are more labels.
    """
    draws = len(right)
    return 2 * float(right[..., -1].var(axis=0, ddof=1).mean()) / draws if draws > 1 else 0.0


def _interval(middle: Matrix, spread: Matrix, weight: Matrix) -> tuple[float, float]:
    """Return the ends of the interval of a mixture of normal distributions."""
    spread = np.maximum(spread, 1e-6)
    low, high = max(0.0, (middle - 4 * spread).min()), min(1.0, (middle + 4 * spread).max())
    values = np.linspace(low, high, _GRID)
    below = ndtr((values[:, None] - middle) / spread) @ weight
    low, high = np.interp(((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2), below, values)
    return float(low), float(high)
