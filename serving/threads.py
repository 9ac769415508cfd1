"""Pools of threads, one for each resource that work waits for.

========  ==============================================================================
store     reads the model store, and loads models
moves     changes the model store, for which it waits for a lock between processes
database  reads the examples: their database, and the files of their pictures
writes    changes the examples, for which it waits for other writers
pictures  reads headers and decodes: it waits for nothing but a CPU
looks     waits for processes that look at next heads, one at a time
========  ==============================================================================

What hangs, such as a stopped database, holds up what needs it too, and nothing else. So what may wait for somebody is
never run in the event loop's default executor, which is one for all.

A caller that is cancelled, as gRPC does when its deadline passes, takes its work out of the queue: it never begins. Nor
does work that nobody waits for by then (`regraft.cancellation`), whose caller sees it through to its end. Work that has
begun finds that out at its locks and before its commit, and ends without an effect; what is committed at that very
moment stays committed.

The threads are daemons: the process ends when it says so, even where one of them is stuck in a system call.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from regraft.cancellation import check_wanted, set_wanted
from regraft.errors import DrainingError, OverloadedError
from regraft.machine import cpu_budget

_MAX_QUEUE: Final = 1_000
"""For the threads of one pool; each is a call that somebody waits for, or a background task's."""

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """A few threads, started as needed, with a bounded queue."""

    def __init__(self, name: str, threads: int, most_waiting: int = _MAX_QUEUE) -> None:
        """Make a pool.

        Args:
            name: of the threads, and for errors.
            threads: the most that work at once.
            most_waiting: the most calls that may wait for a thread.
        """
        self.name = name
        self.threads = threads
        self._most_waiting = most_waiting
        self._waiting: deque[_Work] = deque()
        self._changed = threading.Condition()
        self._started = self._idle = 0
        self._is_closed = False

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread, in a copy of this context.

        Raises:
            OverloadedError: too many calls wait; at once.
            DrainingError: the pool is closed.
        """
        work = self._submit(partial(function, *args, **kwargs))
        try:
            result: T = await asyncio.wrap_future(work.future)
        except asyncio.CancelledError:
            work.is_given_up.set()
            with self._changed, suppress(ValueError):  # it has begun
                self._waiting.remove(work)
            raise
        return result

    def close(self) -> None:
        """Refuse work that waits or comes; running work goes on."""
        with self._changed:
            self._is_closed = True
            refused = [*self._waiting]
            self._waiting.clear()
            self._changed.notify_all()
        for work in refused:
            if work.future.set_running_or_notify_cancel():
                work.future.set_exception(DrainingError("the server is stopping"))

    def _submit(self, call: Callable[[], Any]) -> "_Work":
        context, is_given_up = copy_context(), threading.Event()
        context.run(set_wanted, lambda: not is_given_up.is_set())
        work = _Work(context, call, is_given_up)
        with self._changed:
            if self._is_closed:
                raise DrainingError("the server is stopping")
            if len(self._waiting) >= self._most_waiting:
                raise self._full()
            self._waiting.append(work)
            is_one_free = self._idle >= len(self._waiting) or self._started == self.threads
            self._started += not is_one_free
            self._changed.notify()
        if not is_one_free:
            self._start(work)
        return work

    def _start(self, work: "_Work") -> None:
        """Start a thread; where the system has none, ``work`` waits for the others."""
        try:
            threading.Thread(target=self._work, name=self.name, daemon=True).start()
        except RuntimeError as error:
            with self._changed:
                self._started -= 1
                if self._started or work not in self._waiting:
                    return
                self._waiting.remove(work)
            raise self._full() from error

    def _full(self) -> OverloadedError:
        return OverloadedError(f"the server's threads for the {self.name} are all taken: try again later")

    def _work(self) -> None:
        self._count_idle()
        while (work := self._next()) is not None:
            work.do(self._count_idle)
            del work  # or it would be kept until the next one comes

    def _count_idle(self) -> None:
        with self._changed:
            self._idle += 1

    def _next(self) -> "_Work | None":
        """Return the next work, or None once the pool is closed."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            self._idle -= 1
            return self._waiting.popleft() if self._waiting else None


@dataclass(eq=False)
class _Work:
    context: Context
    call: Callable[[], Any]
    is_given_up: threading.Event
    future: "Future[Any]" = field(default_factory=Future)

    def do(self, at_the_end: Callable[[], object]) -> None:
        """Do the work, and ``at_the_end`` before its waiter may come again."""
        if not self.future.set_running_or_notify_cancel():
            at_the_end()
            return
        try:
            self.context.run(check_wanted)
            result = self.context.run(self.call)
        except BaseException as error:  # noqa: BLE001 - any error belongs to the caller
            at_the_end()
            self.future.set_exception(error)
        else:
            at_the_end()
            self.future.set_result(result)


class Threads:
    """The pools of one server; close them when done."""

    def __init__(self, cpus: int = 0) -> None:
        """Make the pools for so many CPUs, 0: all of this process."""
        self.store = Pool("store", 4)
        self.moves = Pool("moves", 4)
        self.database = Pool("database", 8)
        self.writes = Pool("writes", 4)
        self.pictures = Pool("pictures", cpus or cpu_budget())
        self.looks = Pool("looks", 1, most_waiting=8)

    def close(self) -> None:
        """Close all pools; work that waits gets a DrainingError."""
        for pool in (self.store, self.moves, self.database, self.writes, self.pictures, self.looks):
            pool.close()
