"""Trial of a new champion against its predecessor: pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import sqrt
from typing import Final

from regraft.stores.lifecycle.history import HistoryEntry
from serving.rollout.recent_answers import MIN_ANSWERS, RecentAnswers

AUTHOR: Final = "regraft serve"
"""Of rollbacks after a failed trial, in the history."""
_MIN_FAILURES: Final = 5


@dataclass(frozen=True)
class TrialLimits:
    """Limits of a trial.

    They are gross, since traffic changes too: what is subtle is for the gate and for shadows.

    Attributes:
        error_rise: of the share of requests that failed by the server's fault.
        confidence_drop: of the mean probability of the answer, and three standard errors beyond it. On photographs of
            flowers, one seed each, a good head with a class more lost 0.02, one of a tenth of the images 0.09, one for
            which 40 % of the labels were drawn by lot 0.39.
        ks_rise: of the larger difference, of distance or confidence, from the version's own reference.
    """

    error_rise: float = 0.02
    confidence_drop: float = 0.1
    ks_rise: float = 0.3


@dataclass(frozen=True)
class Trial:
    """A champion on trial, promoted over ``previous``; ``at`` by the store's clock."""

    version: int
    previous: int
    at: datetime


@dataclass(frozen=True)
class Quality:
    """Figures of a version's recent answers.

    Attributes:
        version: the number of the version.
        requests: answered, and failed by the server's fault.
        failures: the latter.
        images: answers that the rest is about.
        confidence: their mean.
        deviation: their standard deviation.
        ks: the larger of the differences of distance and confidence from the reference; None where it is not known.
    """

    version: int
    requests: int
    failures: int
    images: int
    confidence: float
    deviation: float
    ks: float | None


def trial_of(history: Sequence[HistoryEntry]) -> Trial | None:
    """Return the champion that a history puts on trial.

    That is one that was promoted over another. It is none once somebody has promoted it again, whether while on trial
    or after a server went back from it: people have the last word.
    """
    moves = [entry for entry in history if entry.event in ("promote", "rollback")]
    if not moves or moves[-1].event != "promote":
        return None
    last = moves[-1]
    overruled = any(move.who == AUTHOR and move.event == "rollback" and move.previous == last.version for move in moves)
    if last.previous in (None, last.version) or overruled:
        return None
    return Trial(last.version, last.previous, datetime.fromisoformat(last.at))


def quality_of(recent: RecentAnswers) -> Quality:
    """Compute the quality of recent answers, in a millisecond or so."""
    confidence, served = recent.confidence, recent.served
    return Quality(
        version=served.version,
        requests=served.answers + served.failures,
        failures=served.failures + recent.nonsense,
        images=len(confidence),
        confidence=float(confidence.mean()) if len(confidence) else 0.0,
        deviation=float(confidence.std()) if len(confidence) else 0.0,
        ks=max(shift.ks for shift in recent.shifts[:2]) if recent.shifts else None,
    )


def rollback_reasons(now: Quality, before: Quality | None, limits: TrialLimits = TrialLimits()) -> list[str]:
    """Return the reasons against a new champion, with figures.

    Args:
        now: of the new champion.
        before: of its predecessor, or None where this server has not seen it answer; then errors alone count.
        limits: of the trial.

    Returns:
        An empty list while all is well, or too little is known yet.
    """
    reasons = []
    rate = now.failures / max(now.requests, 1)
    rate_before = before.failures / max(before.requests, 1) if before else 0.0
    if now.failures >= _MIN_FAILURES and rate - rate_before > limits.error_rise:
        reasons.append(
            f"{rate:.1%} of {now.requests} requests failed ({rate_before:.1%} before; limit +{limits.error_rise:.1%})"
        )
    if before is None or min(now.images, before.images) < MIN_ANSWERS:
        return reasons
    drop = before.confidence - now.confidence
    error = sqrt(now.deviation**2 / now.images + before.deviation**2 / before.images)
    if drop - 3 * error > limits.confidence_drop:
        reasons.append(
            f"confidence {before.confidence:.3f} -> {now.confidence:.3f} over {now.images} pictures "
            f"(limit -{limits.confidence_drop:g})"
        )
    if now.ks is not None and before.ks is not None and now.ks - before.ks > limits.ks_rise:
        reasons.append(
            f"drift KS {before.ks:.2f} -> {now.ks:.2f} over {now.images} pictures (limit +{limits.ks_rise:g})"
        )
    return reasons
