"""Judgement of a first version, which has no champion before it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.gate_limits import GateLimits
from regraft.label_rules import listed
from training.evaluation.metrics import independent_images, wilson_interval
from training.gate.noninferiority import Mask, share
from training.gate.verdict import MOST_SLICES, ClassVerdict, FirstEvidence, SliceVerdict, Verdict

_SHOWN: Final = 5
_WIDE: Final = 0.2


@dataclass(frozen=True)
class FirstAnswers:
    """Answers to all pictures, by heads not fitted on them.

    Attributes:
        right: bool [n], of training pictures out of fold, of the others by the head itself.
        label_index: int64 [n], the true labels.
        labels: K of them.
        is_holdout: bool [n].
        group: int64 [n], see `training.head.features.Features`.
        source: n of them, where each picture came from.
        suspect: bool [n], labels that are likely wrong.
    """

    right: Mask
    label_index: npt.NDArray[np.int64]
    labels: tuple[str, ...]
    is_holdout: Mask
    group: npt.NDArray[np.int64]
    source: tuple[str, ...]
    suspect: Mask


def judge_first(answers: FirstAnswers, limits: GateLimits, *, golden: Sequence[tuple[str, bool]] = ()) -> Verdict:
    """Judge a first version by the floors that were asked for.

    They hold for all pictures together: of a few labels the holdout alone would say next to nothing.

    Args:
        answers: to every picture.
        limits: of the gate; losses play no part, since there is nothing to lose.
        golden: see `training.gate.judge.judge`.
    """
    held, labels = answers.is_holdout, answers.labels
    rows_of = [answers.label_index == number for number in range(len(labels))]
    sources = Counter(answers.source).most_common(MOST_SLICES)
    names = np.array(answers.source, np.str_)
    parts = [(source, names == source) for source, _ in sources]
    holdout_accuracy = share(answers.right[held])
    verdict = Verdict(
        blessed=False,
        reasons=(),
        cautions=(),
        holdout_images=int(held.sum()),
        champion_accuracy=0.0,
        challenger_accuracy=holdout_accuracy,
        champion_known_accuracy=0.0,
        challenger_known_accuracy=0.0,
        p_value=1.0,
        classes=tuple(
            ClassVerdict(label, int((rows & held).sum()), 0.0, share(answers.right[rows & held]), 0.0, True, 1.0)
            for label, rows in zip(labels, rows_of, strict=True)
        ),
        slices=tuple(
            SliceVerdict(
                source,
                int((rows & held).sum()),
                0.0,
                share(answers.right[rows & held]),
                0.0,
                1.0,
                int(rows.sum()),
                int(answers.suspect[rows].sum()),
                1.0,
            )
            for source, rows in parts
        ),
        golden_images=len(golden),
        golden_failures=tuple(name for name, right in golden if not right),
        new_images=len(answers.right),
        suspects=int(answers.suspect.sum()),
        suspects_p_value=1.0,
        old_suspect_share=0.0,
        first=_evidence(answers),
    )
    reasons = tuple(_objections(answers, parts, rows_of, verdict, limits))
    return replace(verdict, blessed=not reasons, reasons=reasons, cautions=tuple(_cautions(verdict)))


def _evidence(answers: FirstAnswers) -> FirstEvidence:
    train = ~answers.is_holdout
    right, images = int(answers.right[train].sum()), int(train.sum())
    independent = independent_images(answers.group[train])
    return FirstEvidence(
        images,
        share(answers.right[train]),
        *wilson_interval(round(right * independent / images), independent),
        int(answers.is_holdout.sum()),
        share(answers.right[answers.is_holdout]) if answers.is_holdout.any() else None,
        share(answers.right),
    )


def _objections(
    answers: FirstAnswers,
    parts: Sequence[tuple[str, Mask]],
    rows_of: Sequence[Mask],
    verdict: Verdict,
    limits: GateLimits,
) -> Iterator[str]:
    asked = "that the head asked was not fitted on"
    accuracy = share(answers.right)
    if 100 * accuracy < limits.min_accuracy - 1e-9:
        yield (
            f"accuracy {accuracy:.4f} on {len(answers.right)} images {asked} is below the floor of "
            f"{limits.min_accuracy:g} %"
        )
    for label, rows in zip(answers.labels, rows_of, strict=True):
        recall = share(answers.right[rows])
        if 100 * recall < limits.min_class_recall - 1e-9:
            yield (
                f"class {label!r} has a recall of {recall:.3f} on {int(rows.sum())} images {asked}, below the floor "
                f"of {limits.min_class_recall:g} %"
            )
    for source, rows in parts:
        accuracy = share(answers.right[rows])
        if 100 * accuracy < limits.min_slice_accuracy - 1e-9:
            yield (
                f"source {source!r} has an accuracy of {accuracy:.3f} on {int(rows.sum())} images {asked}, below the "
                f"floor of {limits.min_slice_accuracy:g} %"
            )
    if verdict.golden_failures:
        yield f"golden images answered wrong: {listed(verdict.golden_failures, _SHOWN)}"


def _cautions(verdict: Verdict) -> Iterator[str]:
    first = verdict.first
    assert first is not None  # it was made just now
    if first.high - first.low > _WIDE:
        yield (
            f"{first.images} training images say little: the cross-validated accuracy may be anything from "
            f"{first.low:.3f} to {first.high:.3f}"
        )
    if not verdict.holdout_images:
        yield "nothing was held out: about one image in five is, of those to come"
        return
    without = [repr(entry.label) for entry in verdict.classes if not entry.holdout_images]
    if without:
        yield f"no holdout images: {listed(without, _SHOWN)}"
