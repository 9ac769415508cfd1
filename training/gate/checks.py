"""Checks of a verdict against the limits of the gate.

A limit that a person typed decides by itself. One that nobody typed is a margin: it is broken only where an exact test
shows a loss beyond it, since on small holdouts a picture more or less is luck; what is not shown refuses nothing, and
the verdict says which loss it cannot exclude.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from regraft.gate_limits import GateLimits
from regraft.label_rules import listed
from training.gate.verdict import AnchorVerdict, ClassVerdict, SliceVerdict, Verdict

MAX_LOG_LOSS_RISE: Final = 0.1
"""In nats, on the images that both answer rightly; a rise beyond has to be shown."""
_CALIBRATION_RISE: Final = 0.02
LEVEL: Final = 0.05
"""Of the test, over everything that is tested at once."""
_SURELY: Final = 0.001
_SHOWN: Final = 5


def objections(verdict: Verdict, limits: GateLimits) -> Iterator[str]:
    """Yield every reason why the challenger may not become champion."""
    if verdict.holdout_images == 0:
        yield "there are no holdout images, so nothing shows that the new head is any good"
        return
    drop = 100 * (verdict.champion_accuracy - verdict.challenger_accuracy)
    refused = verdict.loss_p_value < LEVEL if limits.max_drop is None else drop > limits.max_drop + 1e-9
    if refused:
        yield (
            f"accuracy falls by {drop:.2f} points, from {verdict.champion_accuracy:.4f} to "
            f"{verdict.challenger_accuracy:.4f} on {verdict.holdout_images} holdout images"
            f"{_evidence(limits.max_drop, limits.margins.drop, verdict.loss_p_value, verdict.p_value)}"
        )
    if 100 * verdict.challenger_accuracy < limits.min_accuracy - 1e-9:
        yield f"accuracy {verdict.challenger_accuracy:.4f} is below the floor of {limits.min_accuracy:g} %"
    if verdict.log_loss_p_value < LEVEL and limits.max_drop is None:
        yield (
            f"log loss on the images that both answer rightly rises from {verdict.champion_log_loss:.3f} to "
            f"{verdict.challenger_log_loss:.3f}: by more than {MAX_LOG_LOSS_RISE:g}, beyond chance "
            f"(p = {verdict.log_loss_p_value:.2g})"
        )
    for entry in verdict.classes:
        yield from _objections_to_class(entry, limits)
    for part in verdict.slices:
        yield from _objections_to_slice(part, verdict, limits)
    share = _suspect_share(verdict.suspects, verdict.new_images)
    if _too_many(share, verdict, limits, verdict.suspects_p_value):
        yield _wrong_labels(verdict.suspects, verdict.new_images, "new labels", verdict)
    if verdict.anchor:
        yield from _objections_to_drift(verdict.anchor, limits)
    if verdict.golden_failures:
        yield f"golden images answered wrong: {listed(verdict.golden_failures, _SHOWN)}"


def _objections_to_drift(anchor: AnchorVerdict, limits: GateLimits) -> Iterator[str]:
    """Object to losses of all steps together."""
    best_of_all = (anchor.best_accuracy, anchor.accuracy, anchor.loss_p_value)
    whole = [("accuracy", anchor.images, *best_of_all, limits.max_drop or 0)]
    classes = [
        (f"recall of class {e.label!r}", e.images, e.best_recall, e.recall, e.loss_p_value, limits.max_class_drop or 0)
        for e in anchor.classes
    ]
    for what, images, best, now, p_value, typed in (*whole, *classes):
        if p_value < LEVEL and 100 * (best - now) > typed:
            yield (
                f"step by step {what} fell by {100 * (best - now):.1f} points, from {best:.3f} of the best version so "
                f"far to {now:.3f}, on {images} holdout images of the first training (p = {p_value:.2g})"
            )


def _objections_to_class(entry: ClassVerdict, limits: GateLimits) -> Iterator[str]:
    if entry.holdout_images == 0:
        return
    if 100 * entry.challenger_recall < limits.min_class_recall - 1e-9:
        yield (
            f"class {entry.label!r} has a recall of {entry.challenger_recall:.3f} on {entry.holdout_images} holdout "
            f"images, below the floor of {limits.min_class_recall:g} %"
        )
    if not entry.is_new:
        shares = entry.champion_recall, entry.challenger_recall, entry.challenger_old_labels_recall
        loss = _Loss(
            f"class {entry.label!r}", "recall", *shares, entry.holdout_images, entry.p_value, entry.loss_p_value
        )
        yield from loss.objections(limits.max_class_drop, limits.margins.class_drop)


def _objections_to_slice(part: SliceVerdict, verdict: Verdict, limits: GateLimits) -> Iterator[str]:
    if part.holdout_images:
        if 100 * part.challenger_accuracy < limits.min_slice_accuracy - 1e-9:
            yield (
                f"source {part.source!r} has an accuracy of {part.challenger_accuracy:.3f} on {part.holdout_images} "
                f"holdout images, below the floor of {limits.min_slice_accuracy:g} %"
            )
        shares = part.champion_accuracy, part.challenger_accuracy, part.challenger_old_labels_accuracy
        loss = _Loss(
            f"source {part.source!r}", "accuracy", *shares, part.holdout_images, part.p_value, part.loss_p_value
        )
        yield from loss.objections(limits.max_slice_drop, limits.margins.slice_drop)
    if part.new_images == verdict.new_images:
        return  # it is said of all new labels
    if _too_many(_suspect_share(part.suspects, part.new_images), verdict, limits, part.suspects_p_value):
        yield _wrong_labels(part.suspects, part.new_images, f"new labels from {part.source!r}", verdict)


@dataclass(frozen=True)
class _Loss:
    """Loss of a class's recall, or of a source's accuracy."""

    whose: str
    metric: str
    before: float
    now: float
    among_old_labels: float
    images: int
    p_value: float
    loss_p_value: float

    def objections(self, typed: float | None, margin: float) -> Iterator[str]:
        """Object to a loss beyond the limit or the margin.

        Where there are more labels to mistake it for, a class is recognised a little less often, which is no
        forgetting: of a typed limit, a loss to new labels counts only if it is beyond chance.
        """
        if typed is None:
            if self.loss_p_value < LEVEL:
                yield self._lost(self.now) + _evidence(typed, margin, self.loss_p_value, self.p_value)
            return
        allowed = max(typed, 100 / self.images)
        if 100 * (self.before - self.among_old_labels) > allowed + 1e-9:
            chance = _chance(self.p_value) if self.now == self.among_old_labels else ", new labels left aside"
            yield f"{self._lost(self.among_old_labels)}{chance}; allowed is {allowed:.1f}"
        elif 100 * (self.before - self.now) > allowed + 1e-9 and self.p_value < LEVEL:
            yield f"{self._lost(self.now)}, to new labels{_chance(self.p_value)}; allowed is {allowed:.1f}"

    def _lost(self, now: float) -> str:
        return (
            f"{self.whose} loses {100 * (self.before - now):.1f} points of {self.metric}, from {self.before:.3f} to "
            f"{now:.3f} on {self.images} holdout images"
        )


def _evidence(typed: float | None, margin: float, loss_p_value: float, p_value: float) -> str:
    if typed is None:
        return f": more than the {margin:g} that may be lost, beyond chance (p = {loss_p_value:.2g})"
    return f"{_chance(p_value)}; allowed is {typed:g}"


def _too_many(share: float, verdict: Verdict, limits: GateLimits, p_value: float) -> bool:
    if limits.max_suspects is None:
        return False
    return 100 * (share - verdict.old_suspect_share) > limits.max_suspects and p_value < _SURELY


def _wrong_labels(suspects: int, images: int, which: str, verdict: Verdict) -> str:
    return (
        f"{suspects} of {images} {which} are likely wrong ({suspects / images:.1%}; of the labels before "
        f"{verdict.old_suspect_share:.1%}): the version's report shows them"
    )


def _suspect_share(suspects: int, images: int) -> float:
    return suspects / images if images else 0.0


def cautions(verdict: Verdict, limits: GateLimits) -> Iterator[str]:
    """Yield cautions, above all the losses that the evidence cannot exclude."""
    margins = limits.margins
    if 100 * verdict.loss_bound > margins.drop + 1e-9 and verdict.holdout_images:
        yield (
            f"{verdict.holdout_images} holdout images cannot exclude a loss of up to {100 * verdict.loss_bound:.1f} "
            "points of accuracy"
        )
    old = [
        entry for entry in verdict.classes if not entry.is_new and 100 * entry.loss_bound > margins.class_drop + 1e-9
    ]
    if old:
        worst = sorted(old, key=lambda entry: -entry.loss_bound)
        each = [f"{e.label} (up to {100 * e.loss_bound:.0f} points, {e.holdout_images} images)" for e in worst]
        yield f"a loss of recall cannot be excluded: {listed(each, _SHOWN)}"
    before, now = verdict.champion_calibration_error, verdict.challenger_calibration_error
    if now > before + _CALIBRATION_RISE:
        yield f"on the classes that the champion knows the calibration error rises from {before:.3f} to {now:.3f}"
    for entry in verdict.classes:
        if entry.is_new and entry.challenger_recall == 0:
            seen = f"none of its {entry.holdout_images} holdout images is recognised"
            nothing = "it has no holdout images, so nothing shows that it is recognised"
            yield (
                f"class {entry.label!r} is new, and {seen if entry.holdout_images else nothing}: label more of it "
                "(about one image in five becomes holdout)"
            )


def _chance(p_value: float) -> str:
    return f" (p = {p_value:.2g}{', which may be chance' if p_value >= LEVEL else ''})"
