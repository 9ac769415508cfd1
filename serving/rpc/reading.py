"""Reading of messages, within a timeout and until the server drains."""

import asyncio
import contextvars
from collections.abc import AsyncIterator
from typing import Any, Final
from weakref import WeakValueDictionary

from regraft.errors import DeadlineError, DrainingError, InvalidRequestError, RegraftError
from serving.rpc.context import Context, address_of
from serving.telemetry.call import current

STOPPING: Final = "the server is stopping: send this, and what comes after it, to another"
_END: Final = object()
_LOOKS_PER_TIMEOUT: Final = 8
"""In the time that a message may take."""
_MAX_OPEN_READS: Final = 2
"""Messages read at once of one address where nobody is asked who calls: each may be as large as two pictures."""


def _message(request: Any) -> Any:  # noqa: ANN401 - any message
    """Return a request, or raise what was wrong with its bytes."""
    if isinstance(request, RegraftError):
        raise request
    return request


class Draining:
    """The state of a drain; it ends the timeouts in ``cuts``."""

    def __init__(self) -> None:
        """Begin without draining."""
        self.is_set = False
        self.cuts: set[asyncio.Timeout] = set()

    def set(self) -> None:
        """Drain from here on."""
        self.is_set = True
        for cut in self.cuts:
            cut.reschedule(0)


class DrainableStream:
    """A stream that ends early when the server drains."""

    def __init__(self, items: AsyncIterator[Any], draining: Draining) -> None:
        """Pass ``items`` on until ``draining`` is set."""
        self._items = items
        self._draining = draining
        self._is_cut = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the items, or raise the error of one."""
        while (items := [await self._next()])[0] is not _END:
            yield _message(items.pop())  # which is not kept here until the next one comes

    async def _next(self) -> Any:  # noqa: ANN401 - any message
        """Return the next item, or `_END`.

        It is that after the last one, and where the server drains before the next comes.
        """
        # A timeout, since two tasks and a wait would cost each message of a stream as much as gRPC itself does.
        cut = asyncio.timeout(0 if self._draining.is_set else None)
        try:
            async with cut:
                self._draining.cuts.add(cut)
                try:
                    return await anext(self._items, _END)
                finally:
                    self._draining.cuts.discard(cut)
        except TimeoutError:
            if not cut.expired():
                raise
            self._is_cut = True
            return _END

    def raise_if_cut(self) -> None:
        """Raise `DrainingError` where the stream was not complete."""
        if self._is_cut:
            raise DrainingError(STOPPING)


class Reader:
    """A reader of messages, with a timeout that a drain cuts short."""

    def __init__(self, timeout_s: float, draining: Draining) -> None:
        """Wait so long for a message, at most until ``draining`` is set."""
        self._timeout_s = timeout_s
        self._draining = draining
        self._began_s: dict[asyncio.Timeout, float] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def one(self, requests: AsyncIterator[Any]) -> Any:  # noqa: ANN401 - any message
        """Return the one message of a request, and note it with the call."""
        if (message := await self._next(requests)) is _END:
            raise InvalidRequestError("the request has no message")
        if call := current():
            call.request = message
        return message

    async def in_turn(self, requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401 - any message
        """Return the one message of a request, few at once per address."""
        async for message in self.all_in_turn(requests, context):
            return message
        raise InvalidRequestError("the request has no message")

    async def all_in_turn(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """Yield all messages of a stream likewise, each within the time."""
        turns = self._turns.setdefault(address_of(context), asyncio.Semaphore(_MAX_OPEN_READS))
        while True:
            async with turns:
                message = await self._next(requests)
            if message is _END:
                return
            yield message

    async def _next(self, requests: AsyncIterator[Any]) -> Any:  # noqa: ANN401 - any message
        loop = asyncio.get_running_loop()
        cut = asyncio.timeout(0 if self._draining.is_set else None)
        self._draining.cuts.add(cut)
        self._began_s[cut] = loop.time()
        self._look_later(loop)
        try:
            async with cut:
                return _message(await anext(requests, _END))
        except TimeoutError:
            if not cut.expired():
                raise
            if self._draining.is_set:
                raise DrainingError(STOPPING) from None
            raise DeadlineError(
                f"the message did not come within {self._timeout_s:g} s (REGRAFT_READ_TIMEOUT): nobody waits longer"
            ) from None
        finally:
            self._draining.cuts.discard(cut)
            del self._began_s[cut]

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        # One timer for all: the loop keeps one that was cancelled to its time, with the context and so the call.
        if self._looking is None and self._began_s:
            self._looking = loop.call_later(
                self._timeout_s / _LOOKS_PER_TIMEOUT, self._look, loop, context=contextvars.Context()
            )

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what has been read for too long."""
        for cut, began_s in self._began_s.items():
            if loop.time() - began_s < self._timeout_s:
                break  # they are in the order in which they began
            cut.reschedule(0)
        self._looking = None
        self._look_later(loop)
