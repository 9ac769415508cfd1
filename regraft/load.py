"""A steady load from real clients, in threads, with every answer accounted for."""

import itertools
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from regraft.client import Client, RemoteError


@dataclass(frozen=True)
class PhaseSummary:
    """The answers of one phase; latencies in milliseconds, of those that did not fail."""

    name: str
    requests: int
    failed: int
    versions: dict[int, int]
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class LoadSummary:
    """All phases, in order, and the sums over them."""

    phases: tuple[PhaseSummary, ...]
    requests: int
    failed: int
    errors: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class _Answer:
    phase: str
    seconds: float
    version: int
    error: str


class Load:
    """Clients that classify pictures in turn, each when its last answer came; a context manager."""

    def __init__(self, target: str, images: Sequence[bytes], clients: int, *, pause_s: float = 0.0) -> None:
        """Prepare ``clients`` threads that send ``images`` round and round to ``target``.

        Args:
            target: the server.
            images: files.
            clients: how many at once.
            pause_s: how long each waits between an answer and its next request.
        """
        self._target = target
        self._images = images
        self._pause_s = pause_s
        self._phase = "before"
        self._answers: list[_Answer] = []
        self._stop = threading.Event()
        self._grew = threading.Condition()
        self._threads = [threading.Thread(target=self._run, args=(start,)) for start in range(clients)]

    def __enter__(self) -> Self:
        """Start the load."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the load; requests on their way are answered first."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def mark(self, phase: str) -> None:
        """Count what is sent from here on under another name."""
        self._phase = phase

    def wait_for(self, answers: int, timeout_s: float = 60.0) -> None:
        """Wait until ``answers`` more have come, or the time is over."""
        with self._grew:
            goal = len(self._answers) + answers
            self._grew.wait_for(lambda: len(self._answers) >= goal, timeout_s)

    def summary(self) -> LoadSummary:
        """Sum up; call it after the load has ended."""
        names = dict.fromkeys(answer.phase for answer in self._answers)
        phases = tuple(_summarise(name, [answer for answer in self._answers if answer.phase == name]) for name in names)
        errors = Counter(answer.error for answer in self._answers if answer.error)
        return LoadSummary(phases, len(self._answers), sum(errors.values()), dict(errors))

    def _run(self, start: int) -> None:
        with Client(self._target) as client:
            for image in itertools.islice(itertools.cycle(self._images), start, None):
                if self._stop.is_set():
                    return
                phase, began_s = self._phase, time.perf_counter()
                try:
                    version, error = client.classify(image, top_k=1).version, ""
                except RemoteError as failure:
                    version, error = 0, f"{failure.code}: {failure}"
                with self._grew:
                    self._answers.append(_Answer(phase, time.perf_counter() - began_s, version, error))
                    self._grew.notify_all()
                self._stop.wait(self._pause_s)


def _summarise(name: str, answers: Sequence[_Answer]) -> PhaseSummary:
    good = sorted(answer.seconds * 1000 for answer in answers if not answer.error)
    versions = Counter(answer.version for answer in answers if not answer.error)
    p99_ms = statistics.quantiles(good, n=100)[98] if len(good) > 1 else 0.0
    return PhaseSummary(
        name,
        len(answers),
        len(answers) - len(good),
        dict(sorted(versions.items())),
        statistics.median(good) if good else 0.0,
        p99_ms,
    )
