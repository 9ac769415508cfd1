"""A load generator for every server that speaks `regraft.v1.Classifier`; ``regraft bench`` is its command.

In a closed loop a number of clients send their next request as their last answer comes: how much does a server do at
most? In an open loop requests fall due at a rate, whatever the server does, as those of independent users do: how long
do they wait? There the latency counts from the time a request was due, so that a server that stalls, and with it
whoever measures, pays for every request that had to wait (Gil Tene, "How NOT to Measure Latency": coordinated
omission).
"""

import asyncio
import itertools
import math
import selectors
import signal
import threading
import time
from typing import Final

from regraft.bench_result import BenchResult, Tally
from regraft.bench_settings import BenchSettings, due_times
from regraft.grpc_bench import Channels, encode_request
from regraft.progress import Progress, silent

_CLIENTS_A_CHANNEL: Final = 4
_OPEN_LOOP_CHANNELS: Final = 8
_TICK_S: Final = 0.25


def run_bench(settings: BenchSettings, progress: Progress = silent) -> BenchResult:
    """Run it in an event loop of its own. Ctrl-C ends it early, and what was measured so far is the result.

    ``progress`` is told the stages ``warm-up`` and ``measure``, in seconds.

    Raises:
        RemoteError: nobody is there.
    """
    with asyncio.Runner(loop_factory=_precise_loop) as runner:
        return runner.run(_until_interrupted(settings, progress))


async def bench(settings: BenchSettings, progress: Progress = silent, stop: asyncio.Event | None = None) -> BenchResult:
    """Run it in the event loop that runs; ``stop`` ends it early, and gives up what is on its way.

    Raises:
        RemoteError: nobody is there.
    """
    count = _OPEN_LOOP_CHANNELS if settings.rate else math.ceil(settings.concurrency / _CLIENTS_A_CHANNEL)
    async with Channels(settings.server, count) as channels:
        return await _Run(settings, channels).play(progress, stop or asyncio.Event())


class _Run:
    """One run: its clock, and the requests on their way."""

    def __init__(self, settings: BenchSettings, channels: Channels) -> None:
        self._settings = settings
        self._channels = channels
        self._requests = [encode_request(image, settings.name) for image in settings.images]
        self._numbers = itertools.count()
        self._began_s = time.perf_counter()
        self._opens_s = self._began_s + settings.warm_up_s
        self._closes_s = self._opens_s + settings.duration_s
        self._tally = Tally(self._opens_s, self._closes_s)
        self._cpu = _CpuMeter()

    async def play(self, progress: Progress, stop: asyncio.Event) -> BenchResult:
        work, stopped = asyncio.create_task(self._work(progress)), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            ended_s, interrupted = time.perf_counter(), not work.done()
            self._cpu.end()
        finally:
            work.cancel()
            stopped.cancel()
            await asyncio.gather(work, stopped, return_exceptions=True)
        if not work.cancelled():
            work.result()  # raises what went wrong in here, if anything did
        return self._tally.result(
            self._settings.to_dict(), ended_s=ended_s, client_cpu_share=self._cpu.share, interrupted=interrupted
        )

    async def _work(self, progress: Progress) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(progress))
            group.create_task(self._open_loop() if self._settings.rate else self._closed_loop())

    async def _closed_loop(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.concurrency):
                group.create_task(self._client())

    async def _client(self) -> None:
        while (now_s := time.perf_counter()) < self._closes_s:
            await self._send(now_s)

    async def _open_loop(self) -> None:
        async with asyncio.TaskGroup() as group:
            for after_s in due_times(self._settings):
                due_s = self._began_s + after_s
                await asyncio.sleep(
                    max(0.0, due_s - time.perf_counter())
                )  # who is late lets the answers in all the same
                group.create_task(self._send(due_s))

    async def _send(self, due_s: float) -> None:
        number = next(self._numbers)
        request = self._requests[number % len(self._requests)]
        self._tally.sent(due_s, time.perf_counter())
        answer = await self._channels.classify(number, request, self._settings.deadline_ms / 1000)
        self._tally.answered(due_s, time.perf_counter(), answer)

    async def _watch(self, progress: Progress) -> None:
        """Tell how far it is, and take the client's own CPU time while it is measured."""
        if self._settings.warm_up_s:
            await _count(progress, "warm-up", self._began_s, self._opens_s)
        self._cpu.begin()
        await _count(progress, "measure", self._opens_s, self._closes_s)
        self._cpu.end()


async def _count(progress: Progress, stage: str, began_s: float, ends_s: float) -> None:
    total = math.ceil(ends_s - began_s)
    while (left_s := ends_s - time.perf_counter()) > 0:
        progress(stage, int(ends_s - began_s - left_s), total)
        await asyncio.sleep(min(_TICK_S, left_s))
    progress(stage, total, total)


class _CpuMeter:
    """The CPU seconds that this process, all its threads, uses for each second; nothing until it began and ended."""

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
    """Return a loop whose timers are good to microseconds: epoll, the default, rounds up to whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
