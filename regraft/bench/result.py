"""Counts of a load test, and its figures."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np

from regraft.bench.channels import OK, STAGES, Answer

_BUSY_SHARE: Final = 0.9
_LATE_MS: Final = 5.0
_PER_MILLE: Final = (500, 950, 990, 999, 1000)


@dataclass(frozen=True)
class Latency:
    """Latencies in milliseconds.

    A percentile is the least latency that so many of a hundred requests did not exceed.
    """

    mean: float
    p50: float
    p95: float
    p99: float
    p99_9: float
    max: float

    @classmethod
    def of(cls, latencies_ms: Sequence[float]) -> Self:
        """Measure at least one latency."""
        values = np.sort(np.asarray(latencies_ms, np.float64))
        # Nearest rank, a latency that somebody really saw; in whole numbers, as 99.9 % of 1000 is not 999 in floats.
        ranks = [-(-len(values) * per_mille // 1000) - 1 for per_mille in _PER_MILLE]
        return cls(float(values.mean()), *map(float, values[ranks]))


@dataclass(frozen=True)
class BenchResult:
    """The figures of one run.

    ``requests`` is the sum of ``answered``, ``errors`` and ``abandoned``.

    Attributes:
        settings: what was asked for, without the pictures.
        seconds: how long it was measured, without the warm-up.
        requests: those that were due while it was measured.
        answered: those of them that were answered without error, whenever the answer came.
        abandoned: those that were on their way when the run was interrupted.
        goodput_per_s: answers without error that came while it was measured.
        latency_ms: of ``answered``, from the time each was due; None where there were none.
        sent_late_p99_ms: how long after it was due a request was sent: the generator's own lateness.
        stages_ms: means of what the server says of its own stages.
        errors: how many by gRPC's code, the commonest first.
        error_texts: what the first error of each code said.
        versions: how many answers each version of the model gave.
        client_cpu_share: CPU seconds of this process for each second measured; 1 is a whole core.
        interrupted: it was stopped before its time.
    """

    settings: dict[str, Any]
    seconds: float
    requests: int
    answered: int
    abandoned: int
    goodput_per_s: float
    latency_ms: Latency | None
    sent_late_p99_ms: float
    stages_ms: dict[str, float]
    errors: dict[str, int]
    error_texts: dict[str, str]
    versions: dict[int, int]
    client_cpu_share: float
    interrupted: bool

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings where the generator itself may be the limit."""
        warnings = []
        if self.client_cpu_share > _BUSY_SHARE:
            warnings.append(
                f"the client itself used {self.client_cpu_share:.2f} of a core: it may be the limit, not the server; "
                "share the load between several processes"
            )
        if self.sent_late_p99_ms > _LATE_MS:
            warnings.append(
                f"1 request in 100 was sent more than {self.sent_late_p99_ms:.0f} ms after it was due (which counts "
                "as latency): the client cannot keep up, or shares its CPUs with a busy server"
            )
        return tuple(warnings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**asdict(self), "warnings": list(self.warnings)}


class Tally:
    """A tally of requests; times are of `time.perf_counter`."""

    def __init__(self, opens_s: float, closes_s: float) -> None:
        """Count requests due, and answers that come, from ``opens_s`` to ``closes_s``."""
        self._opens_s = opens_s
        self._closes_s = closes_s
        self._requests = self._arrived = 0
        self._latencies_ms = array("d")
        self._lateness_ms = array("d")
        self._stages_ms = [0.0] * len(STAGES)
        self._errors: Counter[str] = Counter()
        self._error_texts: dict[str, str] = {}
        self._versions: Counter[int] = Counter()

    def sent(self, due_s: float, sent_s: float) -> None:
        """Count a request."""
        if self._is_counted(due_s):
            self._requests += 1
            self._lateness_ms.append(1000 * (sent_s - due_s))

    def answered(self, due_s: float, done_s: float, answer: Answer) -> None:
        """Count an answer, its latency from when it was due."""
        if answer.code == OK and self._opens_s <= done_s < self._closes_s:
            self._arrived += 1
        if not self._is_counted(due_s):
            return
        if answer.code != OK:
            self._errors[answer.code] += 1
            self._error_texts.setdefault(answer.code, answer.text)
            return
        self._latencies_ms.append(1000 * (done_s - due_s))
        self._versions[answer.version] += 1
        self._stages_ms = [total + ms for total, ms in zip(self._stages_ms, answer.stages_ms, strict=True)]

    def result(
        self, settings: dict[str, Any], *, ended_s: float, client_cpu_share: float, interrupted: bool
    ) -> BenchResult:
        """Sum up a run that ended, or was interrupted, at ``ended_s``."""
        seconds = max(0.0, min(ended_s, self._closes_s) - self._opens_s)
        answered, failed = len(self._latencies_ms), self._errors.total()
        means = {stage: total / answered for stage, total in zip(STAGES, self._stages_ms, strict=True) if answered}
        return BenchResult(
            settings=settings,
            seconds=seconds,
            requests=self._requests,
            answered=answered,
            abandoned=self._requests - answered - failed,
            goodput_per_s=self._arrived / seconds if seconds else 0.0,
            latency_ms=Latency.of(self._latencies_ms) if answered else None,
            sent_late_p99_ms=Latency.of(self._lateness_ms).p99 if self._lateness_ms else 0.0,
            stages_ms=means,
            errors=dict(self._errors.most_common()),
            error_texts=self._error_texts,
            versions=dict(sorted(self._versions.items())),
            client_cpu_share=client_cpu_share,
            interrupted=interrupted,
        )

    def _is_counted(self, due_s: float) -> bool:
        return self._opens_s <= due_s < self._closes_s
