"""Statistics of each model since the server started.

Prometheus, the Open Inference Protocol and Triton's names show the same numbers, each in its own terms. Of a model's
labels so many are counted by themselves, the rest together (`OTHER`).
"""

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

OTHER: Final = "other"
"""What all labels are counted as that came after so many others; a label that is called so, too."""
STAGES: Final = ("decode", "queue", "inference", "total")
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Exemplar:
    """A value with its trace and its time, in seconds since 1970."""

    trace_id: str
    value: float
    at_s: float


class Distribution:
    """A histogram of values: a count per bucket, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Count in buckets up to each of ``bounds``, and beyond."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def add(self, value: float, trace_id: str = "") -> None:
        """Count a value; its trace, if any, becomes the bucket's exemplar."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        if trace_id:
            self.exemplars[bucket] = Exemplar(trace_id, value, time.time())

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    @property
    def sum_ns(self) -> int:
        """The sum of seconds, in nanoseconds."""
        return round(self.sum * 1e9)


@dataclass
class Duration:
    """The number of occurrences, and their time in all."""

    count: int = 0
    sum_ns: int = 0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.sum_ns += round(seconds * 1e9)


@dataclass
class Statistics:
    """The statistics of one model; written on the event loop, read anywhere.

    Attributes:
        most_labels: that are counted by themselves: the first that are given.
        success: requests that were answered.
        fail: requests that were not.
        stages: seconds of the pictures, by stage and in all.
        confidence: probabilities of the labels that they were given.
        labels: pictures by label.
        novel: pictures beyond the novelty threshold.
        runs: of the network; a picture that shared a run with others counts for its share.
        last_ms: time of the last answer, in milliseconds since 1970.
    """

    most_labels: int = 100
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    stages: dict[str, Distribution] = field(default_factory=lambda: {stage: Distribution(SECONDS) for stage in STAGES})
    confidence: Distribution = field(default_factory=lambda: Distribution(_SHARES))
    labels: dict[str, int] = field(default_factory=dict)
    novel: int = 0
    runs: float = 0.0
    last_ms: int = 0
    _shown: dict[str, str] = field(default_factory=dict)

    @property
    def pictures(self) -> int:
        """The number of pictures that were answered."""
        return self.stages["total"].count

    def answered(
        self,
        seconds: Mapping[str, float],
        label: str,
        confidence: float,
        *,
        is_novel: bool,
        batch: int = 1,
        trace_id: str = "",
    ) -> None:
        """Count a picture.

        Args:
            seconds: by stage.
            label: that it was given.
            confidence: the probability of that.
            is_novel: beyond the novelty threshold.
            batch: pictures that shared its run of the network.
            trace_id: of the trace that tells more of it.
        """
        for stage, distribution in self.stages.items():
            distribution.add(seconds[stage], trace_id if stage == "total" else "")
        self.confidence.add(confidence)
        shown = self.shown(label)
        self.labels[shown] = self.labels.get(shown, 0) + 1
        self.novel += is_novel
        self.runs += 1 / batch
        self.last_ms = time.time_ns() // 1_000_000

    def shown(self, label: str) -> str:
        """Return the label to count by: itself, or `OTHER` after too many others."""
        shown = self._shown.get(label)
        if shown is None:
            shown = self._shown[label] = label if len(self._shown) < self.most_labels else OTHER
        return shown
