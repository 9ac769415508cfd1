"""Context of a call over HTTP, in place of gRPC's."""

import asyncio
import re
from collections.abc import Iterable
from typing import Final, NoReturn

import grpc

from regraft.errors import InvalidRequestError
from serving.http.exchange import Exchange
from serving.rpc.context import Metadata

_TIMEOUT_MS: Final = re.compile(r"\d{1,10}")
_GRPC_TIMEOUT: Final = re.compile(r"(\d{1,8})([HMSmun])")
_UNITS_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_STAYS: Final = ("authorization", "traceparent", "tracestate", "user-agent")
"""Headers that a call is told of."""


class CallError(Exception):
    """A call that ended with a status other than OK.

    Attributes:
        code: of gRPC.
        text: for people.
        trailers: hints for retries and details.
    """

    def __init__(self, code: grpc.StatusCode, text: str, trailers: Metadata = ()) -> None:
        """Keep what a client is told."""
        super().__init__(text)
        self.code = code
        self.text = text
        self.trailers = trailers


class HttpContext:
    """The context of one call: a `serving.rpc.context.Context`."""

    def __init__(self, exchange: Exchange) -> None:
        """Read the head of a request.

        Raises:
            InvalidRequestError: the timeout that it states is none.
        """
        self._exchange = exchange
        timeout_s = timeout_of(exchange.headers)
        self.deadline_s = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        self.metadata = tuple((name, exchange.headers[name]) for name in _STAYS if name in exchange.headers)

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None where there is none."""
        return None if self.deadline_s is None else max(0.0, self.deadline_s - asyncio.get_running_loop().time())

    def invocation_metadata(self) -> Metadata:
        """Return the headers that a call is told of."""
        return self.metadata

    def peer(self) -> str:
        """Return the caller's address."""
        return self._exchange.peer.address

    def peer_identities(self) -> Iterable[bytes]:
        """Return the names of the caller's certificate."""
        return (name.encode() for name in self._exchange.peer.identities)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = (), /) -> NoReturn:
        """End the call with a status.

        Raises:
            CallError: always.
        """
        raise CallError(code, details, trailing_metadata)


def timeout_of(headers: dict[str, str]) -> float | None:
    """Return the seconds that a header gives a call, or None.

    The header is Connect's or gRPC-Web's.

    Raises:
        InvalidRequestError: it is no time.
    """
    if text := headers.get("connect-timeout-ms"):
        if not _TIMEOUT_MS.fullmatch(text):
            raise InvalidRequestError(f"Connect-Timeout-Ms: {text[:20]!r}; it is milliseconds, of at most 10 digits")
        return int(text) / 1000
    if text := headers.get("grpc-timeout"):
        match = _GRPC_TIMEOUT.fullmatch(text)
        if match is None:
            raise InvalidRequestError(f"grpc-timeout: {text[:20]!r}; it is up to 8 digits and one of HMSmun, as in 5S")
        return int(match[1]) * _UNITS_S[match[2]]
    return None
