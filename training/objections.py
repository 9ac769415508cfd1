"""The limits of the gate, and what it says where a verdict breaks them.

The limits decide; p values are told beside them, so that a person can tell a loss from bad luck. Significance decides
too where labels are suspected, since some right labels always look wrong, and where an old class loses to a new one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from training.verdict import ClassVerdict, SliceVerdict, Verdict

THIN_EVIDENCE: Final = 10
"""Of fewer holdout images nobody can say how good a class is."""
MAX_DROP: Final = 0.5
_CHANCE: Final = 0.05
_SURELY: Final = 0.001
_SHOWN: Final = 5


@dataclass(frozen=True)
class Limits:
    """How much worse the challenger may be, and how bad at most; all in percentage points.

    Attributes:
        max_drop: of accuracy over the whole holdout.
        max_class_drop: of recall on any one class; one image is always allowed, or a class of ten could lose nothing.
        max_slice_drop: of accuracy on the images of any one source; likewise.
        min_accuracy: over the whole holdout.
        min_class_recall: of every class that has holdout images.
        max_suspects: how much larger the share of likely wrong labels may be among new labels than among old ones,
            where the difference is beyond chance.
        min_slice_accuracy: on the images of every source that has holdout images.
    """

    max_drop: float = MAX_DROP
    max_class_drop: float = 5.0
    max_slice_drop: float = 5.0
    min_accuracy: float = 0.0
    min_class_recall: float = 0.0
    max_suspects: float = 5.0
    min_slice_accuracy: float = 0.0

    @staticmethod
    def of(settings: Mapping[str, Any]) -> "Limits":
        """Return the limits that a job's settings state, the default for each that they do not."""
        return Limits(**{name: settings[name] for name in asdict(Limits()) if name in settings})


def objections(verdict: Verdict, limits: Limits) -> Iterator[str]:
    """Yield every reason why the challenger may not become champion."""
    if verdict.holdout_images == 0:
        yield "there are no holdout images, so nothing shows that the new head is any good"
        return
    drop = 100 * (verdict.champion_accuracy - verdict.challenger_accuracy)
    if drop > limits.max_drop + 1e-9:
        yield (
            f"accuracy falls by {drop:.2f} points, from {verdict.champion_accuracy:.4f} to "
            f"{verdict.challenger_accuracy:.4f} on {verdict.holdout_images} holdout images{_chance(verdict.p_value)}; "
            f"allowed is {limits.max_drop:g}"
        )
    if 100 * verdict.challenger_accuracy < limits.min_accuracy - 1e-9:
        yield f"accuracy {verdict.challenger_accuracy:.4f} is below the floor of {limits.min_accuracy:g} %"
    for entry in verdict.classes:
        yield from _objections_to_class(entry, limits)
    for part in verdict.slices:
        yield from _objections_to_slice(part, verdict, limits)
    share = _suspect_share(verdict.suspects, verdict.new_images)
    if _too_many(share, verdict, limits, verdict.suspects_p_value):
        yield _wrong_labels(verdict.suspects, verdict.new_images, "new labels", verdict)
    if verdict.golden_failures:
        yield f"golden images answered wrong: {_named(verdict.golden_failures)}"


def _objections_to_class(entry: ClassVerdict, limits: Limits) -> Iterator[str]:
    if entry.is_new and entry.holdout_images == 0:
        yield (
            f"class {entry.label!r} is new and has no holdout images, so nothing shows that it is recognised: "
            "label more of it (about one image in five becomes holdout)"
        )
    elif entry.is_new and entry.challenger_recall == 0:
        yield (
            f"class {entry.label!r} is new, and none of its {entry.holdout_images} holdout images is recognised: "
            "label more of it"
        )
    if entry.holdout_images == 0:
        return
    if 100 * entry.challenger_recall < limits.min_class_recall - 1e-9:
        yield (
            f"class {entry.label!r} has a recall of {entry.challenger_recall:.3f} on {entry.holdout_images} holdout "
            f"images, below the floor of {limits.min_class_recall:g} %"
        )
    if not entry.is_new:
        yield from _loss(
            f"class {entry.label!r}",
            "recall",
            (entry.champion_recall, entry.challenger_recall, entry.challenger_old_labels_recall),
            (entry.holdout_images, entry.p_value),
            limits.max_class_drop,
        )


def _objections_to_slice(part: SliceVerdict, verdict: Verdict, limits: Limits) -> Iterator[str]:
    if part.holdout_images:
        if 100 * part.challenger_accuracy < limits.min_slice_accuracy - 1e-9:
            yield (
                f"source {part.source!r} has an accuracy of {part.challenger_accuracy:.3f} on {part.holdout_images} "
                f"holdout images, below the floor of {limits.min_slice_accuracy:g} %"
            )
        yield from _loss(
            f"source {part.source!r}",
            "accuracy",
            (part.champion_accuracy, part.challenger_accuracy, part.challenger_old_labels_accuracy),
            (part.holdout_images, part.p_value),
            limits.max_slice_drop,
        )
    if part.new_images == verdict.new_images:
        return  # it is said of all new labels
    if _too_many(_suspect_share(part.suspects, part.new_images), verdict, limits, part.suspects_p_value):
        yield _wrong_labels(part.suspects, part.new_images, f"new labels from {part.source!r}", verdict)


def _loss(
    whose: str, what: str, shares: tuple[float, float, float], evidence: tuple[int, float], limit: float
) -> Iterator[str]:
    """Object to a loss beyond the limit.

    Where there are more labels to mistake it for, a class is recognised a little less often, which is no forgetting: a
    loss to new labels counts only if it is beyond chance.
    """
    before, now, among_old_labels = shares
    images, p_value = evidence
    allowed = max(limit, 100 / images)
    if 100 * (before - among_old_labels) > allowed + 1e-9:
        chance = _chance(p_value) if now == among_old_labels else ", new labels left aside"
        drop, end = 100 * (before - among_old_labels), among_old_labels
    elif 100 * (before - now) > allowed + 1e-9 and p_value < _CHANCE:
        chance, drop, end = f", to new labels{_chance(p_value)}", 100 * (before - now), now
    else:
        return
    yield (
        f"{whose} loses {drop:.1f} points of {what}, from {before:.3f} to {end:.3f} on {images} holdout "
        f"images{chance}; allowed is {allowed:.1f}"
    )


def _too_many(share: float, verdict: Verdict, limits: Limits, p_value: float) -> bool:
    return 100 * (share - verdict.old_suspect_share) > limits.max_suspects and p_value < _SURELY


def _wrong_labels(suspects: int, images: int, which: str, verdict: Verdict) -> str:
    return (
        f"{suspects} of {images} {which} are likely wrong ({suspects / images:.1%}; of the labels before "
        f"{verdict.old_suspect_share:.1%}): the version's report shows them"
    )


def _suspect_share(suspects: int, images: int) -> float:
    return suspects / images if images else 0.0


def cautions(verdict: Verdict) -> Iterator[str]:
    """Yield what the evidence does not show."""
    thin = [f"{e.label} ({e.holdout_images})" for e in verdict.classes if e.holdout_images < THIN_EVIDENCE]
    if thin:
        yield f"fewer than {THIN_EVIDENCE} holdout images, so a loss could go unseen: {_named(thin)}"


def _chance(p_value: float) -> str:
    return f" (p = {p_value:.2g}{', which may be chance' if p_value >= _CHANCE else ''})"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
