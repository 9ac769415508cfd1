"""Interceptor of all RPCs: guard, capacity, status codes, counts, logs.

gRPC reads the message of a unary request before it calls anybody, but that of a stream when it is asked for; on the
wire they are the same. So every method is a stream here: who calls, and whether there is room, is asked before the
message is read, and its bytes stay with the client until then.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from inspect import isawaitable
from time import perf_counter
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import grpc

from regraft import errors
from regraft.errors import RegraftError
from serving.rpc.context import Context, Metadata, address_of
from serving.rpc.error_details import trailers_of
from serving.rpc.parsing import lenient
from serving.rpc.reading import STOPPING, DrainableStream, Draining, Reader
from serving.rpc.security.guard import Guard
from serving.rpc.status import status_of
from serving.telemetry.call import Call, set_current, trace_id_of
from serving.telemetry.metrics import Metrics
from serving.telemetry.tracing import CallSpan, Tracing

log = logging.getLogger("regraft.rpc")

_OURS: Final = ("/regraft.v1.", "/inference.")


class Arrival(NamedTuple):
    """Facts of a call that arrives."""

    method: str
    metadata: Metadata
    time_s: float


_arrived: Final[ContextVar[Arrival]] = ContextVar("arrived")

_Answer: TypeAlias = Callable[[Any, Any], Any]
_Streaming: TypeAlias = Callable[[Any, Any], AsyncIterator[Any]]


def note_arrival(method: str, metadata: Metadata) -> None:
    """Note a call that begins in this task.

    The scope of its wrapped handler takes it from here.
    """
    _arrived.set(Arrival(method, metadata, perf_counter()))


class Capacity(Protocol):
    """A part with room for only so many requests at once."""

    def check_capacity(self, seconds_left: float | None) -> None:
        """Raise `errors.OverloadedError` where a request would be refused."""


def _level_of(error: Exception) -> int:
    """Return the log level of an error; callers' errors are counted only."""
    if isinstance(error, errors.OperatorError):
        return logging.WARNING
    return logging.INFO if isinstance(error, errors.UnauthenticatedError | errors.ForbiddenError) else logging.DEBUG


class RpcInterceptor(grpc.aio.ServerInterceptor):
    """An interceptor of all methods of one port.

    It wraps Regraft's own, and drains them when the server stops; of the others it bounds the reads.
    """

    def __init__(
        self,
        metrics: Metrics,
        guard: Guard,
        tracing: Tracing | None = None,
        capacities: Mapping[str, Capacity] | None = None,
        read_timeout_s: float = 10.0,
    ) -> None:
        """Make the interceptor of one port.

        Args:
            metrics: counts the calls.
            guard: stands before every method of ours.
            tracing: collects spans.
            capacities: by unary method, what must have room for a request before its message is read.
            read_timeout_s: for the message of a unary request.
        """
        self._metrics = metrics
        self._guard = guard
        self._tracing = tracing
        self._capacities = capacities or {}
        self._wrapped: dict[str, Any] = {}
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = Draining()
        self._reader = Reader(read_timeout_s, self._draining)
        self._open_reader = Reader(read_timeout_s, Draining())  # health answers to the end

    async def drain(self, grace_s: float) -> int:
        """Refuse new calls, end streams, and wait for calls in flight.

        Returns:
            The number of calls that were not finished after ``grace_s``.
        """
        self._draining.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        return self._in_flight

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's handler types are untyped
        """Return the method's handler, wrapped; the same for every call of it."""
        method = handler_call_details.method
        note_arrival(method, handler_call_details.invocation_metadata or ())
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None  # no method of this port: what strangers ask for must not fill the memory
            is_ours = method.startswith(_OURS)
            self._wrapped[method] = self.wrap(method, handler) if is_ours else self._wrap_open(handler)
        return self._wrapped[method]

    def wrap(self, method: str, handler: Any) -> Any:  # noqa: ANN401 - as above
        """Return a handler of ours, behind all that this port asks.

        It takes a stream. Whoever calls it notes the arrival first, in the same task.
        """
        name = method.rpartition("/")[2]
        coders = (lenient(handler.request_deserializer), handler.response_serializer)
        if not handler.response_streaming:
            answer = self._guard(method, self._reading(method, handler.unary_unary), streams=False)
            return grpc.stream_unary_rpc_method_handler(self._unary(answer, name), *coders)
        if handler.request_streaming:
            answer = self._guard(method, handler.stream_stream, streams=True)
            return grpc.stream_stream_rpc_method_handler(self._two_way(answer, name), *coders)
        answer = self._guard(method, self._reading_one(handler.unary_stream), streams=True)
        return grpc.stream_stream_rpc_method_handler(self._one_way(answer, name), *coders)

    def _wrap_open(self, handler: Any) -> Any:  # noqa: ANN401 - as above
        """Return a handler of health or reflection, read by turns, without a guard."""
        coders = (lenient(handler.request_deserializer), handler.response_serializer)
        if not handler.response_streaming:

            async def call(requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401 - any message
                async with _aborting(context):
                    return await handler.unary_unary(await self._open_reader.in_turn(requests, context), context)

            return grpc.stream_unary_rpc_method_handler(call, *coders)

        async def stream(requests: AsyncIterator[Any], context: "grpc.aio.ServicerContext[Any, Any]") -> None:
            async with _aborting(context):
                if handler.request_streaming:
                    answers = handler.stream_stream(self._open_reader.all_in_turn(requests, context), context)
                else:
                    answers = handler.unary_stream(await self._open_reader.in_turn(requests, context), context)
                if isawaitable(answers):  # it writes by itself
                    await answers
                    return
                async for response in answers:
                    await context.write(response)

        return grpc.stream_stream_rpc_method_handler(stream, *coders)

    def _reading(self, method: str, answer: _Answer) -> _Answer:
        """Return ``answer`` with its one message read when there is room."""
        capacity = self._capacities.get(method)

        async def read(requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401 - any message
            if capacity:
                capacity.check_capacity(context.time_remaining())
            return await answer(await self._reader.one(requests), context)

        return read

    def _reading_one(self, answer: _Streaming) -> _Streaming:
        async def read(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            async for response in answer(await self._reader.one(requests), context):
                yield response

        return read

    def _unary(self, inner: Callable[[Any, Any], Awaitable[Any]], name: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401 - any message
            async with _CallScope(self, name, context):
                return await inner(requests, context)

        return call

    def _one_way(self, inner: _Streaming, name: str) -> _Streaming:
        async def call(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            async with _CallScope(self, name, context):
                responses = DrainableStream(inner(requests, context), self._draining)
                async for response in responses:
                    yield response
                responses.raise_if_cut()

        return call

    def _two_way(self, inner: _Streaming, name: str) -> _Streaming:
        async def call(incoming: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            async with _CallScope(self, name, context):
                requests = DrainableStream(incoming, self._draining)
                async for response in inner(requests, context):
                    yield response
                requests.raise_if_cut()

        return call

    async def begin(self, call: "_CallScope", context: Context) -> None:
        """Count a call in, or refuse it while the server drains."""
        if self._draining.is_set:
            self._count(call, grpc.StatusCode.UNAVAILABLE)
            await _abort(context, errors.DrainingError(STOPPING))
        self._in_flight += 1
        self._idle.clear()

    async def end(
        self,
        call: "_CallScope",
        context: Context,
        error: BaseException | None,
        request: Any,  # noqa: ANN401 - any message, or none
    ) -> None:
        """Count a call out, with the status of its error."""
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()
        if error is None:
            self._count(call, grpc.StatusCode.OK)
        elif not isinstance(error, Exception):  # cancelled, or the stream was dropped
            self._count(call, grpc.StatusCode.CANCELLED)
        else:
            code, text = status_of(error)
            self._count(call, code)
            if code is grpc.StatusCode.INTERNAL or isinstance(error, MemoryError):
                log.error("%s", call.method, exc_info=error)
            else:
                log.log(_level_of(error), "%s: %s: %s", call.method, code.name, text)
            await _abort(context, error, call, request)

    def trace(self, arrived: Arrival) -> CallSpan | None:
        """Begin the span of a call, if anybody collects them."""
        return self._tracing.start(arrived.method, arrived.metadata) if self._tracing else None

    def _count(self, call: "_CallScope", code: grpc.StatusCode) -> None:
        self._metrics.finished(call.method, code.name, call.model)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            self._metrics.refused_seconds.observe(perf_counter() - call.arrived_s)
        if call.span:
            call.span.end(code, call.model)


class _CallScope(Call):
    """The scope of one call; a class, since a generator costs each request more."""

    def __init__(self, interceptor: RpcInterceptor, method: str, context: Context) -> None:
        arrived = _arrived.get()
        self.arrived_s = arrived.time_s
        super().__init__(method, trace_id_of(arrived.metadata), address_of(context))
        self._interceptor, self._context = interceptor, context
        self.span = interceptor.trace(arrived)
        if self.span:
            self.trace_id = self.span.trace_id or self.trace_id
            self.on_answer = self.span.picture

    async def __aenter__(self) -> None:
        set_current(self)
        await self._interceptor.begin(self, self._context)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        request, self.request = self.request, None  # timers that were cancelled keep the call for a while
        await self._interceptor.end(self, self._context, error, request)


@asynccontextmanager
async def _aborting(context: Context) -> AsyncIterator[None]:
    """End a call of health or reflection with the status of its error."""
    try:
        yield
    except RegraftError as error:
        await _abort(context, error)


async def _abort(
    context: Context,
    error: BaseException,
    call: Call | None = None,
    request: Any = None,  # noqa: ANN401 - any message, or none
) -> None:
    await context.abort(*status_of(error), trailers_of(error, call, request))
