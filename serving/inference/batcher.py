"""Batching: a queue of requests before a few lanes.

No timer: a free lane takes what is there, so batches fill up exactly while all lanes are busy. Background work waits
in a queue of its own: a lane takes of it only where nobody else waits, and not the last free one while there are
requests. All state belongs to the event loop's thread; only the run itself happens in a lane's thread.

While many wait, a lane may take several batches for one turn, and hands in together what came of them. To answer one
request costs several times what it costs to answer it right after another: between runs of the network, all code and
data that answering needs have left the processor's caches. A turn ends early where runs turn out to be long; one of
background work, where a request comes.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from regraft.errors import DeadlineError, DrainingError, OverloadedError
from regraft.machine import schedule_at_once

_BACKGROUND_TURN: Final = 4
_MAX_TURN_S: Final = 0.08
_LEARNING_RATE: Final = 0.1
_QUIET_S: Final = 1.0
"""After the last request; then background work may take all lanes."""
_WAIT_MARGIN: Final = 1.25
"""A factor: an answer expected only just in time mostly comes too late, and has cost a run."""

PayloadT = TypeVar("PayloadT")
ResultT = TypeVar("ResultT")
WorkT = TypeVar("WorkT")


@dataclass(frozen=True)
class LaneResult(Generic[ResultT]):
    """A result, and its wait for a lane."""

    result: ResultT
    queue_s: float


@dataclass(eq=False)
class _Entry(Generic[PayloadT, ResultT]):
    payload: PayloadT
    future: "asyncio.Future[LaneResult[ResultT]]"
    deadline_s: float | None
    submitted_s: float

    def is_late(self, now_s: float) -> bool:
        return self.deadline_s is not None and self.deadline_s <= now_s

    def fail_late(self) -> None:
        if not self.future.done():
            self.future.set_exception(DeadlineError("the deadline passed while the picture waited for a lane"))


@dataclass(frozen=True, eq=False)
class _FinishedBatch(Generic[PayloadT, ResultT]):
    """A batch after its run, without the entries that were ``late``."""

    batch: list[_Entry[PayloadT, ResultT]]
    results: Sequence[ResultT | Exception]
    started_s: float
    late: list[_Entry[PayloadT, ResultT]]


class Batcher(Generic[PayloadT, ResultT]):
    """A queue before a few lanes, bounded for requests.

    Use it from one event loop, and close it when done.
    """

    def __init__(
        self,
        run: Callable[[Sequence[PayloadT]], Sequence[ResultT | Exception]],
        *,
        lanes: int,
        max_batch: int,
        max_queue: int,
        turn: int = 1,
        turn_s: float = _MAX_TURN_S,
        on_batch: Callable[[int], None] = lambda _size: None,
        cpus: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Make a batcher.

        Args:
            run: called in a lane's thread with 1 to ``max_batch`` payloads; must return as many results, in order; an
                exception in the place of a result is raised to its caller.
            lanes: the number of runs at once.
            max_batch: the most payloads of one run.
            max_queue: the most entries that may wait, background work apart, which its callers bound.
            turn: the most batches of requests that a lane takes at once.
            turn_s: seconds of a CPU that it may take for more than one.
            on_batch: called with the size of each batch.
            cpus: held by a lane while it runs a batch; it may wait for it.
        """
        self._run = run
        self._lanes = self._free_lanes = lanes
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._turn = turn
        self._turn_s = turn_s
        self._on_batch = on_batch
        self._cpus = cpus
        self._queue: deque[_Entry[PayloadT, ResultT]] = deque()
        self._background: deque[_Entry[PayloadT, ResultT]] = deque()
        self._background_lanes = 0
        self._last_request_s = -math.inf
        self._pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane", initializer=schedule_at_once)
        self._is_closed = False
        self._each_s = 0.0  # a running average of what an entry costs, with all lanes at work

    @property
    def depth(self) -> int:
        """The number of requests that wait for a lane."""
        return len(self._queue)

    async def submit(
        self, payload: PayloadT, deadline_s: float | None = None, *, background: bool = False
    ) -> LaneResult[ResultT]:
        """Wait for the result of ``payload``.

        Cancelling the caller removes its entry; batch-mates do not notice.

        Args:
            payload: passed to ``run``.
            deadline_s: time on the event loop's clock after which the answer is of no use to anyone.
            background: requests go first, and no full queue refuses it.

        Raises:
            OverloadedError: the queue is full, or so long that the deadline would pass in it; at once.
            DeadlineError: the deadline passed while it waited.
            DrainingError: the batcher is closed.
        """
        if self._is_closed:
            raise DrainingError("the server is stopping")
        loop = asyncio.get_running_loop()
        seconds_left = None if deadline_s is None else deadline_s - loop.time()
        if not background and (error := self.refusal(seconds_left)):
            raise error
        queue = self._background if background else self._queue
        entry = _Entry[PayloadT, ResultT](payload, loop.create_future(), deadline_s, loop.time())
        queue.append(entry)
        if not background:
            self._last_request_s = entry.submitted_s
        self._dispatch(loop)
        try:
            return await entry.future
        except asyncio.CancelledError:
            with suppress(ValueError):  # it may be in a lane already
                queue.remove(entry)
            raise

    def refusal(self, seconds_left: float | None) -> OverloadedError | None:
        """Return the error by which `submit` would refuse a request now, or None."""
        if len(self._queue) >= self._max_queue:
            return OverloadedError(f"{self._max_queue} pictures wait already: try again later")
        if seconds_left is not None and 0 < seconds_left < (wait_s := self._wait_s()):
            return OverloadedError("so many wait that the deadline would pass: try again later", wait_s / 2)
        return None

    async def run_in_lane(self, work: Callable[[], WorkT]) -> WorkT:
        """Do other work in a lane's thread, after its turn.

        Cancelling the caller does not end the work, which keeps the lane for as long as it takes.

        Raises:
            DrainingError: the batcher is closed.
        """
        if self._is_closed:
            raise DrainingError("the server is stopping")
        loop = asyncio.get_running_loop()
        self._free_lanes -= 1  # below zero while it waits for one
        working = loop.run_in_executor(self._pool, work)
        working.add_done_callback(lambda _done: self._take_back_lane(loop))
        return await asyncio.shield(working)

    async def run_in_all_lanes(self, work: Callable[[], object]) -> None:
        """Do other work in all lanes at once, after their turns.

        Raises:
            DrainingError: the batcher is closed.
            Exception: the first that the work raised, when it has ended in all.
        """
        together = threading.Barrier(self._lanes)  # or one thread could do it twice

        def meet_and_work() -> None:
            together.wait()
            work()

        lanes = [self.run_in_lane(meet_and_work) for _ in range(self._lanes)]
        for outcome in await asyncio.gather(*lanes, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    def close(self) -> None:
        """Refuse what waits and what comes; runs that have started still answer."""
        self._is_closed = True
        self._refuse_waiting()
        self._pool.shutdown(wait=False)

    def _refuse_waiting(self) -> None:
        for queue in (self._queue, self._background):
            while queue:
                future = queue.popleft().future
                if not future.done():
                    future.set_exception(DrainingError("the server is stopping"))

    def _take_back_lane(self, loop: asyncio.AbstractEventLoop) -> None:
        self._free_lanes += 1
        self._dispatch(loop)

    def _wait_s(self) -> float:
        """Return the expected time of a new request, 0 where none waits."""
        running = self._lanes - self._free_lanes
        return _WAIT_MARGIN * self._each_s * (len(self._queue) + running * self._max_batch) if self._queue else 0.0

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._free_lanes > 0 and (queue := self._next_queue(loop.time())):
            background = queue is self._background
            turn = self._take_turn(queue, _BACKGROUND_TURN if background else self._turn, loop.time())
            if not turn:
                continue
            self._free_lanes -= 1
            self._background_lanes += background
            self._pool.submit(self._work, turn, loop, background=background)

    def _next_queue(self, now_s: float) -> "deque[_Entry[PayloadT, ResultT]] | None":
        """Return the queue that a free lane takes from now, if any."""
        if self._queue:
            return self._queue
        is_quiet = now_s - self._last_request_s > _QUIET_S
        allowed = self._lanes if is_quiet else max(1, self._lanes - 1)
        return self._background if self._background and self._background_lanes < allowed else None

    def _work(
        self, turn: list[list[_Entry[PayloadT, ResultT]]], loop: asyncio.AbstractEventLoop, *, background: bool
    ) -> None:
        """Run a turn in a lane's thread; hand its results to the loop."""
        began_s, began_cpu_s = loop.time(), time.thread_time()
        ran: list[_FinishedBatch[PayloadT, ResultT]] = []
        for batch in turn:
            if ran and self._ends_now(len(ran), time.thread_time() - began_cpu_s, background=background):
                break
            with self._cpus():
                ran.append(self._run_batch(batch, loop.time()))
        rest = [entry for batch in turn[len(ran) :] for entry in batch]
        with suppress(RuntimeError):  # the loop may be closed: then nobody waits any more
            loop.call_soon_threadsafe(self._answer, ran, rest, loop.time() - began_s, loop, background)

    def _ends_now(self, runs: int, taken_s: float, *, background: bool) -> bool:
        """Tell whether a turn ends after so many runs; safe in any thread.

        The runs took ``taken_s`` of a CPU's time. By the clock they are longer where others want the CPUs: turns would
        end when they are needed most.
        """
        if background:
            return bool(self._queue) or self._free_lanes < 0 or self._is_closed
        return taken_s * (runs + 1) / runs > self._turn_s

    def _run_batch(self, entries: list[_Entry[PayloadT, ResultT]], now_s: float) -> _FinishedBatch[PayloadT, ResultT]:
        """Run the entries of a batch that are still wanted."""
        batch = [entry for entry in entries if not entry.future.done() and not entry.is_late(now_s)]
        late = [entry for entry in entries if entry.is_late(now_s)]
        results: Sequence[ResultT | Exception] = []
        try:
            if batch:
                results = self._run([entry.payload for entry in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"a batch of {len(batch)} gave {len(results)} results")
        except Exception as error:  # noqa: BLE001 - any error belongs to the callers of the batch
            results = [error] * len(batch)
        except BaseException as error:  # noqa: BLE001 - a panic of native code: the lane shall outlive it
            results = [RuntimeError(repr(error))] * len(batch)
        return _FinishedBatch(batch, results, now_s, late)

    def _take_turn(
        self, queue: "deque[_Entry[PayloadT, ResultT]]", most: int, now_s: float
    ) -> list[list[_Entry[PayloadT, ResultT]]]:
        """Take the batches of a turn, at most half of the queue."""
        half = len(queue) // (2 * self._max_batch)
        batches = (self._take(queue, now_s) for _ in range(min(most, max(1, half))))
        return [batch for batch in batches if batch]

    def _take(self, queue: "deque[_Entry[PayloadT, ResultT]]", now_s: float) -> list[_Entry[PayloadT, ResultT]]:
        """Take the next batch, without the entries that were given up.

        A lane leaves the others that are free their share.
        """
        most = min(self._max_batch, math.ceil(len(queue) / self._free_lanes))
        batch: list[_Entry[PayloadT, ResultT]] = []
        while queue and len(batch) < most:
            entry = queue.popleft()
            if entry.future.done():
                continue
            if entry.is_late(now_s):
                entry.fail_late()
                continue
            batch.append(entry)
        return batch

    def _answer(
        self,
        turn: list[_FinishedBatch[PayloadT, ResultT]],
        rest: list[_Entry[PayloadT, ResultT]],
        seconds: float,
        loop: asyncio.AbstractEventLoop,
        background: bool,
    ) -> None:
        (self._background if background else self._queue).extendleft(reversed(rest))
        if self._is_closed:
            self._refuse_waiting()
        self._free_lanes += 1
        self._background_lanes -= background
        if count := sum(len(ran.batch) for ran in turn):
            each_s = seconds / count / self._lanes
            self._each_s += _LEARNING_RATE * (each_s - self._each_s) if self._each_s else each_s
        for ran in turn:
            self._answer_batch(ran)
        self._dispatch(loop)

    def _answer_batch(self, ran: _FinishedBatch[PayloadT, ResultT]) -> None:
        if ran.batch:
            self._on_batch(len(ran.batch))
        for entry in ran.late:
            entry.fail_late()
        for entry, result in zip(ran.batch, ran.results, strict=True):
            if entry.future.done():
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(LaneResult(result, ran.started_s - entry.submitted_s))
