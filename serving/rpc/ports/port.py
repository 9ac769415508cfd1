"""A gRPC port: its server, limits, TLS and drain."""

import socket
from collections.abc import Iterable
from typing import Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc

from regraft.auth import is_socket
from regraft.errors import OperatorError
from serving.rpc.interceptor import RpcInterceptor
from serving.rpc.ports.reflection import add_reflection
from serving.rpc.security.tls import ReloadingTls, TlsFiles
from serving.settings import Settings

_FLUSH_S: Final = 1.0  # for the last answers to leave; a client that watches our health would hold us longer
_ENVELOPE_BYTES: Final = 64 * 1024  # what a message may hold beside the picture
_NEVER_MS: Final = 2**31 - 1
_MESSAGE_FACTOR: Final = 2
"""A message may be as large as so many of the largest pictures: gRPC ends a whole stream for one that is larger, while
what is merely too large for us is told so by itself, and what comes after it is answered."""


class GrpcPort:
    """A port; add services to ``server``, then `open`, `drain` and `close` it."""

    def __init__(self, flag: str, address: str, settings: Settings, interceptor: RpcInterceptor) -> None:
        """Prepare a port.

        Args:
            flag: of the command line, for errors.
            address: HOST:PORT or unix:PATH.
            settings: of the server.
            interceptor: of this port alone: it keeps handlers by method, and one port's must not answer at another.
        """
        self._flag = flag
        self._address = address
        self._settings = settings
        self._interceptor = interceptor
        self._tls: ReloadingTls | None = None
        options = [
            ("grpc.max_receive_message_length", most_message_bytes(settings)),
            ("grpc.max_concurrent_streams", settings.max_streams),
            # What is not read yet may be as large as the window, which would grow with what is.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.max_allowed_incoming_connections", settings.max_connections),
            ("grpc.max_connection_age_ms", _ms_or_never(settings.max_connection_age)),
            ("grpc.max_connection_age_grace_ms", _ms_or_never(settings.max_connection_age_grace)),
            ("grpc.http2.min_ping_interval_without_data_ms", round(1000 * settings.min_ping_interval)),
            ("grpc.keepalive_permit_without_calls", 1),  # or the least between calls would be two hours
            # Otherwise a second server on the port would silently take half of the requests.
            ("grpc.so_reuseport", int(settings.share_port)),
        ]
        self.server = grpc.aio.server(interceptors=[self._interceptor], options=options)

    async def open(self, services: Iterable[str], health_servicer: health.aio.HealthServicer) -> int:
        """Listen, with health and reflection too; return the port's number.

        Raises:
            OperatorError: the port is taken, or a TLS file cannot be used; the text names the flag.
        """
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, self.server)
        add_reflection((*services, health.SERVICE_NAME), self.server)
        number = self._bind()
        await self.server.start()
        return number

    async def drain(self, grace_s: float) -> int:
        """Drain as `RpcInterceptor.drain` does."""
        return await self._interceptor.drain(grace_s)

    def reload(self) -> None:
        """Read the TLS files again, if there are any."""
        if self._tls:
            self._tls.reload()

    async def close(self, cut: int) -> None:
        """Close, and cut the ``cut`` calls that are still in flight."""
        await self.server.stop(None if cut else _FLUSH_S)

    def _bind(self) -> int:
        settings = self._settings
        if is_socket(self._address) and _is_answered(self._address.removeprefix("unix:")):
            # gRPC would take the name from it without a word.
            raise OperatorError(f"{self._flag} {self._address}: another server listens there")
        try:
            if settings.tls_cert and settings.tls_key:
                self._tls = ReloadingTls(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))
                return int(self.server.add_secure_port(self._address, self._tls.credentials))
            return int(self.server.add_insecure_port(self._address))
        except RuntimeError as error:
            raise OperatorError(
                f"{self._flag} {self._address}: cannot listen there: is the port taken? "
                "Servers that share one all need --share-port"
            ) from error


def most_message_bytes(settings: Settings) -> int:
    """Return the bytes that a message may take."""
    return _MESSAGE_FACTOR * settings.max_image_bytes + _ENVELOPE_BYTES


def _ms_or_never(seconds: float) -> int:
    """Return milliseconds for gRPC, the most of them for never."""
    return round(1000 * seconds) if seconds else _NEVER_MS


def _is_answered(path: str) -> bool:
    """Tell whether a process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0
