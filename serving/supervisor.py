"""Supervision of background tasks: log, count and restart their failures."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from regraft.errors import RegraftError
from serving.telemetry.metrics import Metrics

log = logging.getLogger("regraft.supervisor")

_MAX_DEATHS: Final = 10
"""Deaths in a row, two minutes of them by a server's pauses: what passes by itself shall cost no restart."""
_HEALTHY_S: Final = 60.0


@dataclass(frozen=True)
class Backoff:
    """Pauses between attempts that double with each failure in a row."""

    first_s: float
    most_s: float

    def after(self, failures: int) -> float:
        """Return the pause, in seconds, after one failure or more."""
        return float(min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 64)))


class Supervisor:
    """The supervisor of the background tasks of one event loop.

    What a neighbour brings about, such as a store or a database that is away, is a failure and no death: it is logged
    in a line and tried again, and a restart of the process would not mend it.
    """

    def __init__(
        self,
        metrics: Metrics,
        on_change: Callable[[], Awaitable[object]] | None = None,
        pauses: Backoff = Backoff(0.5, 30.0),
    ) -> None:
        """Supervise nothing yet.

        Args:
            metrics: count what fails, by its purpose.
            on_change: awaited when `liveness_problem` has something else to say.
            pauses: before a task that failed begins again.
        """
        self._counter = metrics.background_failures
        self._on_change = on_change
        self._pauses = pauses
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: dict[str, int] = {}
        self._deaths: dict[str, int] = {}

    def start(self, purpose: str, run: Callable[[], Awaitable[object]]) -> asyncio.Event:
        """Run a task to its end, again after each failure.

        Args:
            purpose: a verb and its object, as the log and the metric call it.
            run: makes the task.

        Returns:
            Set when it has ended, or failed, for the first time.
        """
        return self._start(purpose, run, asyncio.Event())

    def repeat(self, purpose: str, act: Callable[[], Awaitable[object]], every_s: float) -> asyncio.Event:
        """Run a task now and every so often, or after a failure's pause.

        Returns:
            Set when it has ended, or failed, for the first time.
        """
        tried = asyncio.Event()

        async def for_ever() -> None:
            while True:
                await act()
                await self._count(purpose, failures=0, deaths=0)
                tried.set()
                await asyncio.sleep(every_s)

        return self._start(purpose, for_ever, tried)

    def liveness_problem(self) -> str:
        """Return the task that keeps dying, or an empty text; a restart may help."""
        purpose = max(self._deaths, key=self._deaths.__getitem__, default="")
        deaths = self._deaths.get(purpose, 0)
        return f"the task to {purpose} died {deaths} times in a row" if deaths >= _MAX_DEATHS else ""

    async def stop(self) -> None:
        """Cancel every task, and wait until all have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for task, end in zip(tasks, ends, strict=True):
            if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
                log.error("the task to %s died when it was stopped", task.get_name(), exc_info=end)

    def _start(self, purpose: str, run: Callable[[], Awaitable[object]], tried: asyncio.Event) -> asyncio.Event:
        self._counter.labels(purpose)  # 0 is there before 1, or no rule would see it rise
        task = asyncio.create_task(self._keep(purpose, run, tried), name=purpose)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return tried

    async def _keep(self, purpose: str, run: Callable[[], Awaitable[object]], tried: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            begun_s = clock()
            try:
                await run()
                tried.set()
                return
            except BaseException as error:
                if _cancellations():
                    raise
                if clock() - begun_s > _HEALTHY_S:
                    await self._count(purpose, failures=0, deaths=0)
                pause_s = await self._fail(purpose, error)
            tried.set()
            await asyncio.sleep(pause_s)

    async def _fail(self, purpose: str, error: BaseException) -> float:
        """Log and count a failure, and return the pause after it."""
        failures, deaths = self._failures.get(purpose, 0) + 1, self._deaths.get(purpose, 0)
        is_death = not isinstance(error, (RegraftError, OSError))
        pause_s = self._pauses.after(failures)
        with suppress(Exception):  # there may be no memory for a line of the log
            self._counter.labels(purpose).inc()
            if is_death:
                log.error("the task to %s died, and begins again in %g s", purpose, pause_s, exc_info=error)
            else:
                log.warning("cannot %s, and tries again in %g s: %s", purpose, pause_s, error)
        await self._count(purpose, failures=failures, deaths=deaths + 1 if is_death else 0)
        return pause_s

    async def _count(self, purpose: str, *, failures: int, deaths: int) -> None:
        before = self.liveness_problem()
        self._failures[purpose], self._deaths[purpose] = failures, deaths
        if self._on_change and bool(self.liveness_problem()) != bool(before):
            with suppress(Exception):  # nor for a word to the probes, which ask by themselves
                await self._on_change()


async def do_all(acts: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Do everything, and raise the first error at the end."""
    errors: list[BaseException] = []
    cancelled = _cancellations()  # it may be what comes after a task was
    for act in acts:
        try:
            await act()
        except BaseException as error:
            if _cancellations() > cancelled:
                raise
            if errors:
                log.exception("and then")
            errors.append(error)
    if errors:
        raise errors[0]


def _cancellations() -> int:
    """Count the cancellations of the current task itself."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0
