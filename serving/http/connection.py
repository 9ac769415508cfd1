"""Connections of the HTTP port: uvicorn's, bounded in time and number.

The one module that knows uvicorn. Another ASGI server would have to do what `serve` does, and to give the application
a `serving.http.exchange.Peer` with the state of each scope.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from serving.http.exchange import MAX_HEAD_BYTES

if TYPE_CHECKING:
    from socket import socket

_KEEP_ALIVE_S: Final = 75
"""Longer than the minute of usual load balancers, which may send a request at the moment we close."""


@dataclass(frozen=True)
class Bounds:
    """Bounds of a port's connections.

    Attributes:
        most: connections at once; one more is closed.
        patience_s: for the head of a request, for the handshake, for what follows a refusal, and for a client that
            takes nothing of its answer.
    """

    most: int
    patience_s: float


class BoundedConnection(H11Protocol):
    """A connection with a bounded wait for its client.

    It is the `Peer` of its requests.
    """

    def __init__(self, config: uvicorn.Config, state: "_State", bounds: Bounds) -> None:
        """See `H11Protocol`."""
        super().__init__(config, state, {"peer": self})
        self._state = state
        self._bounds = bounds
        self.address = ""
        self.identities: tuple[str, ...] = ()
        self.on_lost: Callable[[], None] | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take the connection, or close it where there are too many."""
        super().connection_made(transport)
        self._state.has_none.clear()
        if len(self.connections) > self._bounds.most:
            transport.abort()
            return
        host, port = (transport.get_extra_info("peername") or ("", 0))[:2]
        self.address = f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
        self.identities = _names(transport.get_extra_info("peercert") or {})
        self._look()

    def data_received(self, data: bytes) -> None:
        """Take data, and bound the wait for a head's rest."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Bound the wait for a body that nobody wants any more."""
        self.on_lost = None
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what the connection waited for."""
        super().connection_lost(exc)
        if not self.connections:
            self._state.has_none.set()
        for timer in (self._cut, self._stalled):
            if timer:
                timer.cancel()
        if on_lost := self.on_lost:
            self.on_lost = None
            on_lost()

    def pause_writing(self) -> None:
        """Bound the time in which the client takes nothing."""
        super().pause_writing()
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(self._bounds.patience_s, self._check_progress)

    def resume_writing(self) -> None:
        """End that bound."""
        super().resume_writing()
        if self._stalled:
            self._stalled.cancel()

    def _check_progress(self) -> None:
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes >= self._unsent_bytes:
            self.transport.abort()
            return
        self._unsent_bytes = unsent_bytes
        self._stalled = self.loop.call_later(self._bounds.patience_s, self._check_progress)

    def _look(self) -> None:
        """Begin or end the time for what must come soon.

        That is a head, or what follows a refusal.
        """
        theirs, ours = self.conn.their_state, self.conn.our_state
        head = theirs is h11.IDLE
        refused = theirs is h11.SEND_BODY and ours in (h11.DONE, h11.MUST_CLOSE)
        if (head or refused) and not self._cut:
            self._cut = self.loop.call_later(self._bounds.patience_s, self.transport.close)
        elif self._cut and not (head or refused):
            self._cut.cancel()
            self._cut = None


class _State(ServerState):
    """The connections of a port."""

    def __init__(self) -> None:
        super().__init__()
        self.has_none = asyncio.Event()
        self.has_none.set()


class Listener:
    """A socket that is listened at, and its connections; `close` it."""

    def __init__(self, server: asyncio.Server, state: _State) -> None:
        """See `serve`."""
        self._server = server
        self._state = state

    async def close(self, patience_s: float) -> None:
        """Take no new connection, and close each that has answered.

        What is left after ``patience_s`` is cut.
        """
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._state.has_none.wait()
        for connection in list(self._state.connections):
            connection.transport.abort()


async def serve(
    application: Callable[..., Any], listening: "socket", tls: ssl.SSLContext | None, bounds: Bounds
) -> Listener:
    """Answer at a bound socket with an ASGI application.

    Close the listener when done.
    """
    config = uvicorn.Config(
        application,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",  # what strangers send is no news
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    config.load()
    state = _State()
    handshake_s = bounds.patience_s if tls else None
    server = await asyncio.get_running_loop().create_server(
        partial(BoundedConnection, config, state, bounds), sock=listening, ssl=tls, ssl_handshake_timeout=handshake_s
    )
    return Listener(server, state)


def _names(certificate: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of a certificate, as gRPC does."""
    names = tuple(value for _, value in certificate.get("subjectAltName", ()))
    common = (value for part in certificate.get("subject", ()) for key, value in part if key == "commonName")
    return names or tuple(common)
