"""Exact paired tests on two classifiers' right answers.

Most of them are of a margin; both answer the same n pictures. Of these, ``lost`` are answered rightly by the first
alone and ``gained`` by the second alone; all others tell the two not apart. The loss is the difference of their shares.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, norm

_NUISANCE: Final = 200
_DEVIATIONS: Final = 4
"""In square roots of n, each at least two standard deviations: what lies further away counts for nothing."""
_LEVEL: Final = 0.05


Mask = npt.NDArray[np.bool_]


def share(right: Mask) -> float:
    """Return the share of true rows, 0 of none."""
    return float(right.mean()) if len(right) else 0.0


def losses(before: Mask, now: Mask) -> tuple[int, int]:
    """Count the rows [n] that are right in the first alone, and in the second alone."""
    return int((before & ~now).sum()), int((now & ~before).sum())


def p_value_of_difference(lost: int, gained: int) -> float:
    """Return the exact two-sided p value of McNemar's test (1947)."""
    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def p_value_of_loss(lost: int, gained: int, images: int, limit: float) -> float:
    """Return the exact one-sided p value of a loss beyond ``limit``.

    The null hypothesis is that it is ``limit`` at most. The unconditional test of Suissa and Shuster (Biometrics 1991),
    with the margin of Sidik (Statistics in Medicine 2003): the probability that (lost - gained - images limit) /
    sqrt(lost + gained) is at least so large is computed exactly, and the largest is taken over a grid of what nobody
    knows, the true share of ``gained``.
    """
    excess = lost - gained - images * limit
    if excess <= 0:
        return 1.0
    statistic = excess / np.sqrt(lost + gained)
    true_gain = np.linspace(0, (1 - limit) / 2, _NUISANCE, endpoint=False)[:, None]
    beside = np.arange(-_DEVIATIONS * np.sqrt(images), _DEVIATIONS * np.sqrt(images))
    other_gained = np.floor(images * true_gain) + np.floor(beside)
    possible = (other_gained >= 0) & (other_gained <= images)
    other_gained = np.where(possible, other_gained, 0)
    root = (statistic + np.sqrt(statistic**2 + 4 * (2 * other_gained + images * limit))) / 2
    fewest_lost = np.ceil(root**2 - other_gained - 1e-9)
    tail = binom.sf(fewest_lost - 1, images - other_gained, (true_gain + limit) / (1 - true_gain))
    chance = np.where(possible, binom.pmf(other_gained, images, true_gain), 0) * tail
    return float(min(1.0, chance.sum(axis=1).max()))


def p_value_of_drop(before: Mask, now: Mask, points: float) -> float:
    """Return `p_value_of_loss` of right answers [n], beyond so many percentage points."""
    return p_value_of_loss(*losses(before, now), len(now), max(0.0, points / 100))


def largest_loss(lost: int, gained: int, images: int) -> float:
    """Return the one-sided 95 % upper bound of the loss.

    The upper end of the score interval of Tango (Statistics in Medicine 1998), which holds where the two differ on few
    pictures or on none. Without pictures it is 1.
    """
    if not images:
        return 1.0
    observed, z = (lost - gained) / images, norm.ppf(1 - _LEVEL)

    def beyond(loss: float) -> float:
        b = -lost - gained + (2 * images - lost + gained) * loss
        gain = (np.sqrt(b**2 + 8 * images * gained * loss * (1 - loss)) - b) / (4 * images)
        spread = np.sqrt(max(0.0, images * (2 * gain + loss * (1 - loss))))
        return float(images * (loss - observed) - z * spread)

    least = max(observed, 0.0) + 1e-9
    if beyond(least) >= 0:
        return max(observed, 0.0)
    return 1.0 if beyond(1.0) <= 0 else float(brentq(beyond, least, 1.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p values of several hypotheses for one level (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    raw = np.asarray(p_values, np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raw)) if len(raw) else raw
    return [float(value) for value in adjusted]
