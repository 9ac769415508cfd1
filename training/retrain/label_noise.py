"""Tell wrong labels from a head's own mistakes, among those it contradicts.

Whoever corrects a model sends what it got wrong, so that a contradiction by itself says nothing, nor do many of one
kind: a head mixes up some pairs of classes. But the mistakes of a calibrated head are mostly hesitant, as its
probabilities foretell; wrong labels hit pictures that it is as sure of as of any other.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.stats import chi2

from regraft.model.artifact import FloatArray
from training.gate.noninferiority import holm

_LEVEL: Final = 0.05
_LEAST: Final = 0.02
"""No label is held for less probable than this, since heads are surer of new pictures than they should be."""
_MOST_SURE: Final = 0.5
"""Of a head's mistakes at most this share are on pictures that it is sure of, the label less probable than `_LEAST`:
on four sets of photographs they were 7 to 40 %."""
_FEWEST: Final = 2

_Rows = npt.NDArray[np.int64]
_Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Foretold:
    """The probabilities that a head gives to pictures, by its answer.

    Attributes:
        label: float64 [K, K], what the probability of each label is divided by, on the pictures of each answer, for the
            density of mistakes: its mean, or more, see `_MOST_SURE`.
        answer: float64 [K], the mean probability of the answer.
    """

    label: _Matrix
    answer: _Matrix

    @staticmethod
    def by(probabilities: FloatArray) -> "Foretold":
        """Average a head's probabilities [n, K] of pictures that it never saw."""
        classes, answers = probabilities.shape[1], probabilities.argmax(axis=1)
        label, answer = np.full((classes, classes), _LEAST), np.ones(classes)
        for each in np.unique(answers):
            of_answer = probabilities[answers == each].astype(np.float64)
            on_sure = _LEAST * (of_answer < _LEAST).mean(axis=0)
            label[each] = np.maximum(np.maximum(of_answer, _LEAST).mean(axis=0), on_sure / _MOST_SURE)
            answer[each] = of_answer[:, each].mean()
        return Foretold(label, answer)


def wrong_labels(probabilities: FloatArray, label_index: _Rows, foretold: Foretold) -> _Matrix:
    """Estimate the probability [n] that contradicted labels are wrong.

    Of each pair of label and answer the rows are a mixture of two parts. Where the head is mistaken, a picture is the
    more frequent the more probable its label is; where the label is wrong, the more probable the answer is. A pair
    counts where a likelihood ratio test shows wrong labels in it, at 5 % over all pairs (Holm). All other rows are
    tested together, for labels that are wrong by chance.

    Args:
        probabilities: float32 [n, K] of a calibrated head that was not fitted on the rows; its answers are not the
            labels.
        label_index: int64 [n], the labels.
        foretold: of the same head.
    """
    rows, answer = np.arange(len(label_index)), probabilities.argmax(axis=1)
    label = np.maximum(probabilities[rows, label_index].astype(np.float64), _LEAST)
    mistake = label / foretold.label[answer, label_index]
    wrong = probabilities[rows, answer] / foretold.answer[answer]
    doubt, rest = np.zeros(len(rows)), np.ones(len(rows), np.bool_)
    _, pair = np.unique(label_index * probabilities.shape[1] + answer, return_inverse=True)
    parts = [part for part in (np.flatnonzero(pair == one) for one in range(pair.max() + 1)) if len(part) >= _FEWEST]
    mixtures = [_Mixture.fitted(mistake[part], wrong[part]) for part in parts]
    for part, mixture, p_value in zip(parts, mixtures, holm([each.p_value for each in mixtures]), strict=True):
        if p_value < _LEVEL:
            doubt[part], rest[part] = mixture.doubt, False
    others = _Mixture.fitted(mistake[rest], wrong[rest])
    if rest.sum() >= _FEWEST and others.p_value < _LEVEL:
        doubt[rest] = others.doubt
    return doubt


@dataclass(frozen=True)
class _Mixture:
    """A mixture of mistakes and wrong labels, n rows.

    Attributes:
        doubt: float64 [n], how likely each is a wrong label.
        p_value: of the hypothesis that none is.
    """

    doubt: _Matrix
    p_value: float

    @staticmethod
    def fitted(mistake: _Matrix, wrong: _Matrix) -> "_Mixture":
        """Fit the share of wrong labels to the densities of both parts."""

        def surprise(share: float) -> float:
            return -float(np.log(share * wrong + (1 - share) * mistake).sum())

        share = float(minimize_scalar(surprise, bounds=(0.0, 1.0), method="bounded").x)
        ratio = 2 * max(0.0, surprise(0.0) - surprise(share))  # a share of 0 is at its edge: half the chi-square tail
        likely = share * wrong
        return _Mixture(likely / (likely + (1 - share) * mistake), float(chi2.sf(ratio, 1)) / 2)
