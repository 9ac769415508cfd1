"""gRPC channels to a server, blocking and asynchronous."""

import ssl
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

import grpc
import grpc.aio

from regraft.auth import is_loopback
from regraft.client.connection import Connection
from regraft.errors import InvalidRequestError

_MAX_MESSAGE_BYTES: Final = 64 * 2**20
_OPTIONS: Final[tuple[tuple[str, str | int], ...]] = (
    ("grpc.lb_policy_name", "round_robin"),  # over all addresses of a name; of one address that is the one
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # Channels with the same options would otherwise share one connection, and with it one HTTP/2 flow control.
    ("grpc.use_local_subchannel_pool", 1),
)

Metadata: TypeAlias = tuple[tuple[str, str], ...]


def open_channel(connection: Connection) -> grpc.Channel:
    """Return a blocking channel; it connects on first use.

    Raises:
        InvalidRequestError: a file cannot be read; the text names the flag.
    """
    credentials, options = _credentials(connection), _options(connection)
    if credentials:
        channel = grpc.secure_channel(connection.target, credentials, options=options)
    else:
        channel = grpc.insecure_channel(connection.target, options=options)
    metadata = metadata_of(connection)
    return grpc.intercept_channel(channel, _WithMetadata(metadata)) if metadata else channel


def open_aio_channel(connection: Connection) -> grpc.aio.Channel:
    """Return an asynchronous channel; its calls need `metadata_of`.

    Raises:
        InvalidRequestError: as `open_channel`.
    """
    credentials, options = _credentials(connection), _options(connection)
    if credentials:
        return grpc.aio.secure_channel(connection.target, credentials, options=options)
    return grpc.aio.insecure_channel(connection.target, options=options)


def metadata_of(connection: Connection) -> Metadata:
    """Return the metadata that names the caller."""
    return (("authorization", f"Bearer {connection.token}"),) if connection.token else ()


def _options(connection: Connection) -> tuple[tuple[str, str | int], ...]:
    """Return the channel's options; no proxy before this machine."""
    return (*_OPTIONS, ("grpc.enable_http_proxy", 0)) if is_loopback(connection.target) else _OPTIONS


def _credentials(connection: Connection) -> grpc.ChannelCredentials | None:
    """Return credentials for TLS, or None.

    The files are tried first, since gRPC would just never connect with bad ones.
    """
    ca, cert, key = connection.tls_ca, connection.tls_cert, connection.tls_key
    if ca is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    flags = f"--tls-ca {ca}"
    try:
        context.load_verify_locations(ca)
        if cert is None or key is None:
            return grpc.ssl_channel_credentials(ca.read_bytes())
        flags = f"--tls-cert {cert}, --tls-key {key}"
        context.load_cert_chain(cert, key, password="")  # an encrypted key shall not ask the terminal
        return grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), cert.read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise InvalidRequestError(f"{flags}: need PEM files ({reason})") from error


class _Details(NamedTuple):
    """Call details, which gRPC's own types do not let us make."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _WithMetadata(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """An interceptor that adds metadata, also without TLS."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def _go_on(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:  # noqa: ANN401 - gRPC's
        metadata = (*(details.metadata or ()), *self._metadata)
        rest = (details.credentials, details.wait_for_ready, details.compression)
        return continuation(_Details(details.method, details.timeout, metadata, *rest), request)

    intercept_unary_unary = _go_on  # type: ignore[assignment]  # gRPC's own types differ by kind, the work does not
    intercept_unary_stream = _go_on  # type: ignore[assignment]  # gRPC's own types differ by kind, the work does not
    intercept_stream_stream = _go_on  # type: ignore[assignment]  # gRPC's own types differ by kind, the work does not
