"""HTTP port: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for probes."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from regraft.errors import OperatorError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_ALIVE_S: Final = 2.0
"""A loop that answers no sooner answers no request either."""


class MetricsPort:
    """An HTTP port, opened on the event loop of its server; `close` it."""

    def __init__(
        self,
        address: str,
        metrics: "WSGIApplication",
        readiness_problem: Callable[[], str],
        liveness_problem: Callable[[], str],
    ) -> None:
        """Listen at HOST:PORT.

        Args:
            address: port 0 takes a free one.
            metrics: answers ``/metrics``, and all other paths.
            readiness_problem: asked on the loop; empty while the server is ready.
            liveness_problem: likewise; what a restart may mend, beside a loop that does not answer.

        Raises:
            OperatorError: the port is taken.
        """
        self._loop = asyncio.get_running_loop()
        self._probes = {"/healthz": liveness_problem, "/readyz": readiness_problem}
        self._metrics = metrics
        # Each takes the interpreter from those who answer; several at once would take most of it.
        self._scraping = Lock()
        host, _, port = address.rpartition(":")
        server = _V6Server if ":" in host else _Server
        try:
            self._server = make_server(host.strip("[]"), int(port), self._answer, server, _Handler)
        except OSError as error:
            raise OperatorError(f"--metrics {address}: {error.strerror}: choose another port") from error
        self.number = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        with suppress(OSError):  # wakes the thread, which looks twice a second whether to end; macOS refuses
            self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environment: "WSGIEnvironment", respond: "StartResponse") -> Iterable[bytes]:
        path = environment["PATH_INFO"]
        if path not in self._probes:
            with self._scraping:
                return self._metrics(environment, respond)
        text = self._ask_the_loop(self._probes[path])
        status = HTTPStatus.SERVICE_UNAVAILABLE if text else HTTPStatus.OK
        respond(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text or 'ok'}\n".encode()]

    def _ask_the_loop(self, why_not: Callable[[], str]) -> str:
        async def ask() -> str:
            return why_not()

        try:
            return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(_ALIVE_S)
        except FutureTimeoutError:
            return "the server does not answer itself"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # one that waits for a client that is gone must not hold the end up

    def server_bind(self) -> None:
        """Bind without the name server that HTTPServer asks."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # of text and number
        self.setup_environ()


class _V6Server(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep quiet: a scrape every few seconds is no news."""
