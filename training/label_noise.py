"""Wrong labels among those that a head contradicts: a mixture of its own mistakes and of labels that are wrong.

Whoever corrects a model sends what it got wrong, so that a contradiction by itself says nothing. But mistakes of a
calibrated head are mostly hesitant, and spread over the pairs of classes as its probabilities foretell; wrong labels
hit pictures that the head is as sure of as of any other, and often one pair of classes.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from regraft.artifact import FloatArray
from training.noninferiority import holm

_LEVEL: Final = 0.05
_LEAST: Final = 0.02
"""No label is held for less probable than this, since heads are surer of new pictures than they should be."""
_FEWEST: Final = 2
_ROUNDS: Final = 200
_SMALL: Final = 1e-6

_Rows = npt.NDArray[np.int64]
_Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Foretold:
    """The mistakes that a head foretells of itself, on pictures whose labels nobody doubts.

    Attributes:
        answered: float64 [K], the share of pictures that each class is the answer of.
        certainty: float64 [K], the mean probability of the answer, by the answer.
        mistakes: the share of pictures that it answers wrongly, foretold or observed, whichever is more.
    """

    answered: _Matrix
    certainty: _Matrix
    mistakes: float

    @staticmethod
    def by(probabilities: FloatArray, label_index: _Rows) -> "Foretold":
        """Look at what a head said, [n, K], of pictures that it was not fitted on."""
        answer, sure = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(np.float64)
        images = np.bincount(answer, minlength=probabilities.shape[1])
        others = np.maximum(probabilities, _LEAST).sum(axis=1) - np.maximum(sure, _LEAST)
        certainty = np.bincount(answer, sure, len(images)) / np.maximum(images, 1)
        return Foretold(
            np.maximum(images / len(answer), _SMALL),
            np.where(images > 0, certainty, 1.0),
            float(max(others.mean(), (answer != label_index).mean())),
        )


def wrong_labels(probabilities: FloatArray, label_index: _Rows, foretold: Foretold) -> _Matrix:
    """Return how likely each of the labels of one source that a head contradicts is wrong [n].

    Expectation maximisation (Dempster, Laird and Rubin, 1977) of a mixture: one part are the head's mistakes, in which
    a label is as frequent as it is probable; one part for each pair of label and answer are wrong labels, in which the
    answer is. A pair counts only where a likelihood ratio test shows its part, at 5 % over all pairs (Holm).

    Args:
        probabilities: float32 [n, K] of a calibrated head that was not fitted on the rows; its answers are not the
            labels.
        label_index: int64 [n], the labels.
        foretold: of the same head.
    """
    rows, classes = np.arange(len(label_index)), probabilities.shape[1]
    answer = probabilities.argmax(axis=1)
    sure = probabilities[rows, answer].astype(np.float64)
    label = np.maximum(probabilities[rows, label_index].astype(np.float64), _LEAST)
    mistake = foretold.answered[answer] * label / foretold.mistakes
    wrong = sure / foretold.certainty[answer]
    _, pair = np.unique(label_index * classes + answer, return_inverse=True)
    share = _shares(pair, mistake, wrong)
    shown = _shown(pair, share, mistake, wrong)
    likely = share[pair] * wrong
    posterior: _Matrix = likely / (likely + (1 - share.sum()) * mistake)
    doubt: _Matrix = np.where(shown[pair], posterior, 0.0)
    return doubt


def _shares(pair: _Rows, mistake: _Matrix, wrong: _Matrix) -> _Matrix:
    """Return the share of all rows that are wrong labels, by their pair, of the greatest likelihood."""
    share: _Matrix = 0.3 * np.bincount(pair) / len(pair)
    for _ in range(_ROUNDS):
        likely = share[pair] * wrong
        posterior = likely / (likely + (1 - share.sum()) * mistake)
        before, share = share, np.bincount(pair, posterior) / len(pair)
        if np.abs(share - before).max() < _SMALL:
            break
    return share * min(1.0, (1 - _SMALL) / max(float(share.sum()), _SMALL))


def _shown(pair: _Rows, share: _Matrix, mistake: _Matrix, wrong: _Matrix) -> npt.NDArray[np.bool_]:
    """Return the pairs whose wrong labels are beyond chance; a share is at the edge of what it can be where it is 0."""
    rest = 1 - share.sum()
    full = np.log(share[pair] * wrong + rest * mistake)
    tested = np.flatnonzero(np.bincount(pair) >= _FEWEST)
    p_values = []
    for one in tested:
        without = np.where(pair == one, 0.0, share[pair]) * wrong + (rest + share[one]) * mistake
        p_values.append(float(chi2.sf(2 * max(0.0, (full - np.log(without)).sum()), 1)) / 2)
    shown = np.zeros(len(share), np.bool_)
    shown[tested] = np.array(holm(p_values)) < _LEVEL
    return shown
