"""Judgement of a challenger beside the champion, one pure function."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import fisher_exact, ttest_1samp

from regraft.gate_limits import GateLimits
from regraft.model.artifact import FloatArray
from training.evaluation.calibration import squared_error
from training.gate.checks import MAX_LOG_LOSS_RISE, cautions, objections
from training.gate.noninferiority import Mask, holm, largest_loss, losses, p_value_of_difference, p_value_of_drop, share
from training.gate.verdict import MOST_SLICES, AnchorVerdict, ClassVerdict, SliceVerdict, Verdict

_LEAST: Final = 1e-3
"""No probability counts for less in the log loss, or one picture would decide."""


@dataclass(frozen=True)
class Answers:
    """The answers of two heads on the same frozen holdout.

    Attributes:
        champion: probabilities [n, K_old] over the first K_old labels.
        challenger: probabilities [n, K] over all labels.
        label_index: int64 [n], the true labels.
        labels: K of them; those from K_old on are new to the champion.
        source: n of them, where each image came from; none where nobody knows.
    """

    champion: FloatArray
    challenger: FloatArray
    label_index: npt.NDArray[np.int64]
    labels: tuple[str, ...]
    source: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewLabels:
    """Labels that are new to the champion, beside the old.

    Attributes:
        source: m of them.
        suspect: bool [m], likely wrong.
        old: how many labels the champion had already.
        old_suspects: how many of those are likely wrong.
    """

    source: tuple[str, ...] = ()
    suspect: Mask = field(default_factory=lambda: np.empty(0, np.bool_))
    old: int = 0
    old_suspects: int = 0


NO_NEW_LABELS: Final = NewLabels()


def judge(
    answers: Answers,
    limits: GateLimits,
    *,
    news: NewLabels = NO_NEW_LABELS,
    golden: Sequence[tuple[str, bool]] = (),
    anchor: AnchorVerdict | None = None,
) -> Verdict:
    """Judge two heads on the same frozen holdout.

    ``golden`` has the names of pictures that have to be answered rightly, and whether the challenger does.
    """
    truth, old_labels, margins = answers.label_index, answers.champion.shape[1], limits.margins
    old_right = answers.champion.argmax(axis=1) == truth
    new_right = answers.challenger.argmax(axis=1) == truth
    old_labels_right = answers.challenger[:, :old_labels].argmax(axis=1) == truth
    rights = (old_right, new_right, old_labels_right)
    is_old = truth < old_labels
    verdict = Verdict(
        blessed=False,
        reasons=(),
        cautions=(),
        holdout_images=len(truth),
        champion_accuracy=share(old_right),
        challenger_accuracy=share(new_right),
        champion_known_accuracy=share(old_right[is_old]),
        challenger_known_accuracy=share(new_right[is_old]),
        p_value=mcnemar(old_right, new_right),
        classes=tuple(
            _class(label, tuple(right[truth == row] for right in rights), row >= old_labels, margins.class_drop)
            for row, label in enumerate(answers.labels)
        ),
        slices=_slices(answers, rights, news, margins.slice_drop),
        golden_images=len(golden),
        golden_failures=tuple(name for name, right in golden if not right),
        new_images=len(news.suspect),
        suspects=int(news.suspect.sum()),
        suspects_p_value=_more_suspects(news.suspect, news),
        old_suspect_share=news.old_suspects / news.old if news.old else 0.0,
        loss_p_value=p_value_of_drop(old_right, new_right, margins.drop),
        loss_bound=_loss_bound(old_right, new_right),
        anchor=anchor,
    )
    verdict = _with_probabilities(_adjusted(verdict), answers, is_old, is_old & old_right & new_right)
    reasons = tuple(objections(verdict, limits))
    return replace(verdict, blessed=not reasons, reasons=reasons, cautions=tuple(cautions(verdict, limits)))


def mcnemar(first_right: Mask, second_right: Mask) -> float:
    """Compute McNemar's exact two-sided p value on two classifiers' right answers [n]."""
    return p_value_of_difference(*losses(first_right, second_right))


def _with_probabilities(verdict: Verdict, answers: Answers, is_old: Mask, both_right: Mask) -> Verdict:
    """Add both heads' log loss and calibration error, on classes both know.

    Log loss is compared where both answer rightly, so that it is no second look at the accuracy.
    """
    truth, rows = answers.label_index[both_right], np.arange(int(both_right.sum()))
    before, after = (
        -np.log(np.maximum(each[both_right][rows, truth].astype(np.float64), _LEAST))
        for each in (answers.champion, answers.challenger)
    )
    rise = after - before
    # Where all rise alike, or there is one, there is nothing to test by.
    varies = len(rise) > 1 and float(rise.std()) > 0
    test = ttest_1samp(rise, MAX_LOG_LOSS_RISE, alternative="greater").pvalue if varies else 1.0
    errors = [
        max(0.0, squared_error(each[is_old], answers.label_index[is_old])) ** 0.5 if is_old.any() else 0.0
        for each in (answers.champion, answers.challenger)
    ]
    return replace(
        verdict,
        champion_log_loss=float(before.mean()) if len(rows) else 0.0,
        challenger_log_loss=float(after.mean()) if len(rows) else 0.0,
        log_loss_p_value=float(test),
        champion_calibration_error=errors[0],
        challenger_calibration_error=errors[1],
    )


def _loss_bound(old_right: Mask, new_right: Mask) -> float:
    return largest_loss(*losses(old_right, new_right), len(old_right))


def _adjusted(verdict: Verdict) -> Verdict:
    """Adjust the p values of all losses for each other (Holm).

    Where there are no pictures is no test.
    """
    tested: list[Verdict | ClassVerdict | SliceVerdict] = [verdict]
    tested += [entry for entry in verdict.classes if entry.holdout_images and not entry.is_new]
    tested += [part for part in verdict.slices if part.holdout_images]
    p_values = dict(zip(map(id, tested), holm([each.loss_p_value for each in tested]), strict=True))
    return replace(
        verdict,
        loss_p_value=p_values[id(verdict)],
        classes=tuple(replace(each, loss_p_value=p_values.get(id(each), 1.0)) for each in verdict.classes),
        slices=tuple(replace(each, loss_p_value=p_values.get(id(each), 1.0)) for each in verdict.slices),
    )


def _class(label: str, rights: tuple[Mask, ...], is_new: bool, limit: float) -> ClassVerdict:
    old_right, new_right, old_labels_right = rights
    return ClassVerdict(
        label,
        len(old_right),
        share(old_right),
        share(new_right),
        share(old_labels_right),
        is_new,
        mcnemar(old_right, new_right),
        p_value_of_drop(old_right, new_right, limit),
        _loss_bound(old_right, new_right),
    )


def _slices(answers: Answers, rights: tuple[Mask, ...], news: NewLabels, limit: float) -> tuple[SliceVerdict, ...]:
    largest = Counter([*answers.source, *news.source]).most_common(MOST_SLICES)
    holdout_source, new_source = np.array(answers.source, np.str_), np.array(news.source, np.str_)
    slices = []
    for source, _ in largest:
        old, new, old_labels = (
            right[holdout_source == source] if len(holdout_source) else right[:0] for right in rights
        )
        suspect = news.suspect[new_source == source]
        slices.append(
            SliceVerdict(
                source,
                len(old),
                share(old),
                share(new),
                share(old_labels),
                mcnemar(old, new),
                len(suspect),
                int(suspect.sum()),
                _more_suspects(suspect, news),
                p_value_of_drop(old, new, limit),
                _loss_bound(old, new),
            )
        )
    return tuple(slices)


def _more_suspects(suspect: Mask, news: NewLabels) -> float:
    """Compute Fisher's one-sided p value for more suspects than before."""
    wrong = int(suspect.sum())
    if not wrong:
        return 1.0
    table = [[wrong, len(suspect) - wrong], [news.old_suspects, news.old - news.old_suspects]]
    return float(fisher_exact(table, alternative="greater").pvalue)
