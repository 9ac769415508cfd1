"""Background load of a server, counted in phases.

It is the closed loop of `regraft.bench.generator` beside other work.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from regraft.bench.generator import Run, open_channels
from regraft.bench.result import BenchResult, Tally
from regraft.bench.settings import BenchSettings

_FOR_EVER_S: Final = 1e9

Begin: TypeAlias = "Callable[[Coroutine[Any, Any, None]], Future[None]]"
"""A starter of coroutines on an event loop in another thread."""


@dataclass(frozen=True)
class LoadResult:
    """Results of the requests by phase, in order."""

    phases: dict[str, BenchResult]

    @property
    def requests(self) -> int:
        """Number of requests that were sent."""
        return sum(phase.requests for phase in self.phases.values())

    @property
    def errors(self) -> Counter[str]:
        """Numbers of failed requests by gRPC's code."""
        return sum((Counter(phase.errors) for phase in self.phases.values()), Counter())

    @property
    def failed(self) -> int:
        """Number of failed requests."""
        return self.errors.total()

    @property
    def versions(self) -> Counter[int]:
        """Numbers of answers by version."""
        return sum((Counter(phase.versions) for phase in self.phases.values()), Counter())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        phases = {name: asdict(phase) for name, phase in self.phases.items()}
        return {"phases": phases, "requests": self.requests, "failed": self.failed, "errors": self.errors}


def in_a_thread(work: Coroutine[Any, Any, None]) -> "Future[None]":
    """Start a coroutine on an event loop in its own thread."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="load")
    done = pool.submit(asyncio.run, work)
    pool.shutdown(wait=False)
    return done


class Load:
    """A closed loop of clients, as a context manager."""

    def __init__(self, settings: BenchSettings, begin: Begin = in_a_thread) -> None:
        """Prepare clients for as long as the block lasts.

        Args:
            settings: what they send, and where; its times do not matter.
            begin: where they live: ``grpc.aio`` does not do well with several event loops in one process.
        """
        self._settings = replace(settings, rate=None, warm_up_s=0.0, duration_s=_FOR_EVER_S)
        self._begin = begin
        self._connected: Future[None] = Future()
        self._grew = threading.Condition()
        self._answers = 0
        self._tallies: dict[str, Tally] = {}
        self._run: Run
        self._done: Future[None]

    def __enter__(self) -> Self:
        """Connect, and start the load.

        Raises:
            RemoteError: nobody is there.
        """
        self._done = self._begin(self._work())
        wait([self._connected, self._done], return_when=FIRST_COMPLETED)
        if not self._connected.done():
            self._done.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the load; requests on their way are answered first."""
        self._run.finish()
        self._done.result()

    def mark(self, phase: str) -> None:
        """Begin a phase, which counts requests; the first is ``before``."""
        now_s = time.perf_counter()
        self._run.tally = self._tallies.setdefault(phase, Tally(now_s, now_s + _FOR_EVER_S))

    def wait_for(self, answers: int, timeout_s: float = 60.0) -> None:
        """Wait until ``answers`` more have come, or the time is over."""
        with self._grew:
            goal = self._answers + answers
            self._grew.wait_for(lambda: self._answers >= goal, timeout_s)

    def result(self) -> LoadResult:
        """Sum up; call it after the load has ended."""
        settings, ended_s = self._settings.to_dict(), time.perf_counter()
        sums = {
            name: tally.result(settings, ended_s=ended_s, client_cpu_share=0.0, interrupted=False)
            for name, tally in self._tallies.items()
        }
        return LoadResult(sums)

    async def _work(self) -> None:
        async with open_channels(self._settings) as channels:
            self._run = Run(self._settings, channels, self._count)
            self.mark("before")
            self._connected.set_result(None)
            await self._run.work()

    def _count(self) -> None:
        with self._grew:
            self._answers += 1
            self._grew.notify_all()
