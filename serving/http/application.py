"""The ASGI application: which protocol answers a request."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import grpc

from regraft.errors import RegraftError
from serving.http.call import GoneError
from serving.http.context import CallError
from serving.http.cors import is_preflight
from serving.http.exchange import Exchange, HugeHeadError, Receive, Scope, Send, TooLargeError
from serving.http.methods import Method, Methods
from serving.http.open_inference.service import OpenInference
from serving.http.plain.rest import Rest
from serving.http.problem import respond_problem
from serving.http.protocols import connect, grpc_web
from serving.http.status import call_error
from serving.rpc.status import INTERNAL_TEXT

log = logging.getLogger("regraft.http")


@dataclass(frozen=True)
class Rules:
    """Rules of a port, from the settings of the server.

    Attributes:
        most_bytes: of a message.
        origins: of the pages that may ask.
    """

    most_bytes: int
    origins: tuple[str, ...] = ()


class HttpApplication:
    """All that is answered over HTTP."""

    def __init__(self, methods: Methods, probes: Mapping[str, Callable[[], str]], rules: Rules) -> None:
        """Answer ``methods`` and ``probes``; of the latter see `serving.http.plain.rest.Rest`."""
        self._methods = methods
        self._rest = Rest(methods, probes, rules.most_bytes)
        self._inference = OpenInference(methods, rules.most_bytes)
        self._most_bytes = rules.most_bytes
        self._origins = rules.origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        try:
            await self._answer(exchange)
        except GoneError:
            log.debug("%s %s: the client did not wait", exchange.method, exchange.path)
        except Exception:
            log.exception("%s %s", exchange.method, exchange.path)
            if exchange.has_begun:
                raise  # the connection is closed, so that what was sent does not pass for the whole
            await respond_problem(exchange, CallError(grpc.StatusCode.INTERNAL, INTERNAL_TEXT))

    async def _answer(self, exchange: Exchange) -> None:
        try:
            exchange.check_head()
            if await is_preflight(exchange, self._origins):
                return
            if method := self._methods.get(exchange.path):
                await self._call(exchange, method)
            else:
                await self._answer_url(exchange)
        except HugeHeadError as error:
            await respond_problem(exchange, call_error(error), 431)
        except TooLargeError as error:
            await respond_problem(exchange, call_error(error), 413)
        except RegraftError as error:
            await respond_problem(exchange, call_error(error))
        except CallError as error:
            await respond_problem(exchange, error)

    async def _answer_url(self, exchange: Exchange) -> None:
        """Answer a plain URL."""
        path = tuple(unquote(part) for part in exchange.path.strip("/").split("/"))
        handlers = self._rest.find(path) or self._inference.find(path)
        if not handlers:
            raise CallError(grpc.StatusCode.NOT_FOUND, f"there is nothing at {exchange.path[:200]}")
        if handler := handlers.get(exchange.method):
            await handler(exchange)
        else:
            allowed = ", ".join(handlers)
            await respond_problem(exchange, _not_so(f"there is {allowed} of this"), 405, [("allow", allowed)])

    async def _call(self, exchange: Exchange, method: Method) -> None:
        """Answer an RPC by the protocol of its content type."""
        kind = exchange.content_type
        is_stream = method.streams_in or method.streams_out
        if exchange.method != "POST":
            await respond_problem(exchange, _not_so("RPCs are called by POST"), 405, [("allow", "POST")])
        elif kind in connect.UNARY and not is_stream:
            await connect.answer_unary(exchange, method, connect.UNARY[kind], self._most_bytes)
        elif kind in connect.STREAMS and is_stream:
            await connect.answer_stream(exchange, method, connect.STREAMS[kind], self._most_bytes)
        elif kind in grpc_web.TYPES:
            await grpc_web.answer_web(exchange, method, self._most_bytes)
        else:
            types = ", ".join((*(connect.STREAMS if is_stream else connect.UNARY), *grpc_web.TYPES))
            text = f"content-type: {kind[:100]!r}; this RPC takes {types}"
            await respond_problem(exchange, _not_so(text), 415, [("accept-post", types)])


def _not_so(text: str) -> CallError:
    return CallError(grpc.StatusCode.INVALID_ARGUMENT, text)
