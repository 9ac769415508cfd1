"""A call over HTTP, with a deadline; its client may leave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import grpc

from regraft.errors import RegraftError
from serving.http.context import CallError, HttpContext
from serving.http.exchange import Exchange
from serving.http.methods import Method
from serving.http.status import call_error
from serving.rpc.interceptor import note_arrival

_DEADLINE_TEXT: Final = "Deadline Exceeded"
"""What gRPC's clients say of it."""


class GoneError(Exception):
    """A client that did not wait for the answer."""


class OneMessage:
    """A stream of one message, read when it is asked for."""

    def __init__(self, read: Callable[[], Awaitable[Any]]) -> None:
        """Read by ``read``; what it raises of the caller's fault is yielded."""
        self._read: Callable[[], Awaitable[Any]] | None = read

    def __aiter__(self) -> "OneMessage":
        """Return itself."""
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - any message, or an error
        """Read the message, or end."""
        if self._read is None:
            raise StopAsyncIteration
        read, self._read = self._read, None
        try:
            return await read()
        except RegraftError as error:
            return error


async def answer(exchange: Exchange, method: Method, read: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - any message
    """Return the response of a method that answers once.

    Args:
        exchange: the HTTP request that asks.
        method: that is asked.
        read: reads the message, and is called when there is room for it.

    Raises:
        CallError: the call failed.
        GoneError: the client left.
    """
    context = _arrived(exchange, method)
    async with _attended(exchange, context):
        return await method.answer(OneMessage(read), context)


async def answer_all(
    exchange: Exchange, method: Method, requests: AsyncIterator[Any], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Send each response of a method; see `answer`.

    There may be one, or a stream of them.
    """
    context = _arrived(exchange, method)
    async with _attended(exchange, context):
        if not method.streams_out:
            await send(await method.answer(requests, context))
            return
        async with aclosing(method.answer(requests, context)) as responses:
            async for response in responses:
                await send(response)


def _arrived(exchange: Exchange, method: Method) -> HttpContext:
    """Return the context of a call that begins."""
    try:
        context = HttpContext(exchange)
    except RegraftError as error:
        raise call_error(error) from error
    note_arrival(method.path, context.metadata)
    return context


@asynccontextmanager
async def _attended(exchange: Exchange, context: HttpContext) -> AsyncIterator[None]:
    """Run a block until the deadline passes or the client leaves."""
    is_gone = False
    cut = asyncio.timeout_at(context.deadline_s)

    def leave() -> None:
        nonlocal is_gone
        is_gone = True
        if not cut.expired():
            cut.reschedule(0)

    try:
        async with cut:
            exchange.peer.on_lost = leave
            try:
                yield
            finally:
                exchange.peer.on_lost = None
    except TimeoutError:
        if not cut.expired():
            raise
        if is_gone:
            raise GoneError from None
        raise CallError(grpc.StatusCode.DEADLINE_EXCEEDED, _DEADLINE_TEXT) from None
