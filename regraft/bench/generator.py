"""A load generator for servers of `regraft.v1.Classifier`.

In a closed loop a number of clients send their next request as their last answer comes: how much does a server do at
most? In an open loop requests fall due at a rate, whatever the server does, as those of independent users do: how long
do they wait? There the latency counts from the time a request was due, so that a server that stalls
pays for every request that had to wait (Gil Tene, "How NOT to Measure Latency": coordinated
omission).
"""

import asyncio
import itertools
import math
import selectors
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from regraft.bench.channels import Channels, encode_request
from regraft.bench.result import BenchResult, Tally
from regraft.bench.settings import BenchSettings, due_times
from regraft.progress import Progress, silent

_CLIENTS_A_CHANNEL: Final = 4
_OPEN_LOOP_CHANNELS: Final = 8
_TICK_S: Final = 0.25


def run_bench(settings: BenchSettings, progress: Progress = silent) -> BenchResult:
    """Run a load test in an event loop of its own.

    Ctrl-C ends it early, with the result so far. ``progress`` is told the stages ``warm-up`` and ``measure``, in
    seconds.

    Raises:
        RemoteError: nobody is there.
    """
    with asyncio.Runner(loop_factory=_precise_loop) as runner:
        return runner.run(_until_interrupted(settings, progress))


async def bench(settings: BenchSettings, progress: Progress = silent, stop: asyncio.Event | None = None) -> BenchResult:
    """Run a load test in the running event loop.

    ``stop`` ends it early, and gives up requests on their way.

    Raises:
        RemoteError: nobody is there.
    """
    async with open_channels(settings) as channels:
        return await _play(Run(settings, channels), progress, stop or asyncio.Event())


def open_channels(settings: BenchSettings) -> Channels:
    """Return the connections of a load; enter them before use."""
    return Channels(
        settings.server, _OPEN_LOOP_CHANNELS if settings.rate else math.ceil(settings.concurrency / _CLIENTS_A_CHANNEL)
    )


class Run:
    """One run: its clock, and the requests on their way.

    ``tally`` counts the requests that are sent from now on; another may take its place for a new phase.
    """

    def __init__(
        self, settings: BenchSettings, channels: Channels, on_answer: Callable[[], None] = lambda: None
    ) -> None:
        """Begin a run now, and call ``on_answer`` at each answer."""
        self.settings = settings
        self._channels = channels
        self._on_answer = on_answer
        self._requests = [encode_request(image, settings.name) for image in settings.images]
        self._numbers = itertools.count()
        self.began_s = time.perf_counter()
        self.opens_s = self.began_s + settings.warm_up_s
        self.closes_s = self.opens_s + settings.duration_s
        self.tally = Tally(self.opens_s, self.closes_s)
        self._finished = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def work(self) -> None:
        """Send requests until the time is over, and wait for their answers."""
        await (self._open_loop() if self.settings.rate else self._closed_loop())

    def finish(self) -> None:
        """End the sending of a closed loop, from any thread."""
        self._loop.call_soon_threadsafe(self._finished.set)

    async def _closed_loop(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.settings.concurrency):
                group.create_task(self._client())

    async def _client(self) -> None:
        while (now_s := time.perf_counter()) < self.closes_s and not self._finished.is_set():
            await self._send(now_s)
            if self.settings.pause_s:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.settings.pause_s):
                        await self._finished.wait()

    async def _open_loop(self) -> None:
        async with asyncio.TaskGroup() as group:
            for after_s in due_times(self.settings):
                due_s = self.began_s + after_s
                await asyncio.sleep(
                    max(0.0, due_s - time.perf_counter())
                )  # who is late lets the answers in all the same
                group.create_task(self._send(due_s))

    async def _send(self, due_s: float) -> None:
        tally, number = self.tally, next(self._numbers)
        request = self._requests[number % len(self._requests)]
        tally.sent(due_s, time.perf_counter())
        answer = await self._channels.classify(number, request, self.settings.deadline_ms / 1000)
        tally.answered(due_s, time.perf_counter(), answer)
        self._on_answer()


async def _play(run: Run, progress: Progress, stop: asyncio.Event) -> BenchResult:
    """Play a run, as far as it comes before ``stop``."""
    cpu = _CpuMeter()

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_watch(run, cpu, progress))
            group.create_task(run.work())

    working, stopped = asyncio.create_task(work()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        ended_s, interrupted = time.perf_counter(), not working.done()
        cpu.end()
    finally:
        working.cancel()
        stopped.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)
    if not working.cancelled():
        working.result()  # raises what went wrong in here, if anything did
    return run.tally.result(
        run.settings.to_dict(), ended_s=ended_s, client_cpu_share=cpu.share, interrupted=interrupted
    )


async def _watch(run: Run, cpu: "_CpuMeter", progress: Progress) -> None:
    """Report a run's progress, and measure the client's own CPU time."""
    if run.settings.warm_up_s:
        await _count(progress, "warm-up", run.began_s, run.opens_s)
    cpu.begin()
    await _count(progress, "measure", run.opens_s, run.closes_s)
    cpu.end()


async def _count(progress: Progress, stage: str, began_s: float, ends_s: float) -> None:
    total = math.ceil(ends_s - began_s)
    while (left_s := ends_s - time.perf_counter()) > 0:
        progress(stage, int(ends_s - began_s - left_s), total)
        await asyncio.sleep(min(_TICK_S, left_s))
    progress(stage, total, total)


class _CpuMeter:
    """A meter of this process's CPU seconds a second."""

    def __init__(self) -> None:
        self.share = 0.0
        self._began: tuple[float, float] | None = None

    def begin(self) -> None:
        self._began = time.process_time(), time.perf_counter()

    def end(self) -> None:
        """End it; what is later than the first end does not count."""
        if self._began:
            cpu_s, wall_s = self._began
            self.share = (time.process_time() - cpu_s) / max(time.perf_counter() - wall_s, 1e-9)
            self._began = None


async def _until_interrupted(settings: BenchSettings, progress: Progress) -> BenchResult:
    stop = asyncio.Event()
    if threading.current_thread() is threading.main_thread():  # no other may handle signals
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    return await bench(settings, progress, stop)


def _precise_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop with timers good to microseconds, unlike epoll's."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
