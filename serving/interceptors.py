"""What every RPC has in common: errors become status codes, in one table; calls are counted, failures logged."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from regraft import errors
from serving.metrics import Metrics

log = logging.getLogger("regraft.rpc")

STATUS: Final[dict[type[errors.RegraftError], grpc.StatusCode]] = {
    errors.CallerError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.DrainingError: grpc.StatusCode.UNAVAILABLE,
    errors.PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.OperatorError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StorageError: grpc.StatusCode.UNAVAILABLE,
}
"""By the nearest class: an error that is not named here has its parent's code."""

INTERNAL_TEXT: Final = "internal error; the server's log has the details"
_OURS: Final = "/regraft.v1."


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """Return the status code and the text that a client gets for an error."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind], str(error)
    return grpc.StatusCode.INTERNAL, INTERNAL_TEXT


class RpcInterceptor(grpc.aio.ServerInterceptor):
    """Wraps Regraft's own methods; health and reflection pass through."""

    def __init__(self, metrics: Metrics) -> None:
        """Count into ``metrics``."""
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's handler types are untyped
        """Return the method's handler, wrapped."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(_OURS):
            return handler
        if handler.response_streaming:
            inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(self._streaming(inner, method), handler.request_deserializer, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(
            self._unary(handler.unary_unary, method), handler.request_deserializer, handler.response_serializer
        )

    def _unary(self, inner: Callable[[Any, Any], Awaitable[Any]], method: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401 - any message
            async with self._guard(method, context):
                return await inner(request, context)

        return call

    def _streaming(
        self, inner: Callable[[Any, Any], AsyncIterator[Any]], method: str
    ) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:  # noqa: ANN401 - any message
            async with self._guard(method, context):
                async for response in inner(requests, context):
                    yield response

        return call

    @asynccontextmanager
    async def _guard(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
        """Count the call, and end it with the right status when the block raises."""
        name = method.rpartition("/")[2]
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self._count(name, grpc.StatusCode.CANCELLED)
            raise
        except Exception as error:
            code, text = status_of(error)
            self._count(name, code)
            if code is grpc.StatusCode.INTERNAL:
                log.exception("%s", name)
            else:
                log.info("%s: %s: %s", name, code.name, text)
            await context.abort(code, text)
        else:
            self._count(name, grpc.StatusCode.OK)

    def _count(self, method: str, code: grpc.StatusCode) -> None:
        self._metrics.requests.labels(method, code.name).inc()
