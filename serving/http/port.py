"""The HTTP port: its methods, limits, TLS and drain."""

import socket
from collections.abc import Callable, Mapping
from typing import Final

from regraft.errors import MissingPackageError, OperatorError
from serving.http.application import HttpApplication, Rules
from serving.http.methods import Methods
from serving.rpc.interceptor import RpcInterceptor
from serving.rpc.ports.port import most_message_bytes
from serving.rpc.security.tls import ReloadingContext, TlsFiles
from serving.settings import Settings

try:
    from serving.http.connection import Bounds, Listener, serve
except ModuleNotFoundError as error:
    raise MissingPackageError("--http needs more packages: pip install 'regraft[http]'") from error

_BACKLOG: Final = 1024
_FLUSH_S: Final = 1.0
"""For the last answers to leave."""


class HttpPort:
    """The HTTP port of a server.

    Register servicers with its ``methods``, then `open`, `drain` and `close` it.
    """

    def __init__(self, address: str, settings: Settings, interceptor: RpcInterceptor) -> None:
        """Prepare a port.

        Args:
            address: HOST:PORT.
            settings: of the server.
            interceptor: of this port alone.
        """
        self._address = address
        self._settings = settings
        self._interceptor = interceptor
        self._listener: Listener | None = None
        self._tls: ReloadingContext | None = None
        self.methods = Methods(interceptor.wrap)

    async def open(self, probes: Mapping[str, Callable[[], str]]) -> int:
        """Listen; return the port's number.

        Args:
            probes: by path, such as healthz, what says what is wrong, or nothing.

        Raises:
            OperatorError: the port is taken, or a TLS file cannot be used; the text names the flag.
        """
        settings = self._settings
        if settings.tls_cert and settings.tls_key:
            self._tls = ReloadingContext(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))
        rules = Rules(most_message_bytes(settings), settings.http_origin)
        application = HttpApplication(self.methods, probes, rules)
        listening = self._bind()
        bounds = Bounds(settings.max_connections, settings.read_timeout)
        self._listener = await serve(application, listening, self._tls.context if self._tls else None, bounds)
        return int(listening.getsockname()[1])

    def refresh(self) -> None:
        """Read the TLS files again if they have changed."""
        if self._tls:
            self._tls.refresh()

    def reload(self) -> None:
        """Read the TLS files again, if there are any."""
        if self._tls:
            self._tls.reload()

    async def drain(self, grace_s: float) -> int:
        """Drain as `RpcInterceptor.drain` does."""
        return await self._interceptor.drain(grace_s)

    async def close(self, cut: int) -> None:
        """Close, and cut the ``cut`` calls that are still in flight."""
        if self._listener:
            await self._listener.close(0 if cut else _FLUSH_S)

    def _bind(self) -> socket.socket:
        host, _, port = self._address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._settings.share_port:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind((host.strip("[]"), int(port)))
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            raise OperatorError(f"--http {self._address}: {error.strerror}: choose another port") from error
        return listening
