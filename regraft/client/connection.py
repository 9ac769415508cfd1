"""The connection to a server: address, secrets, certificates."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from regraft.auth import is_loopback
from regraft.errors import InvalidRequestError

DEFAULT_TARGET: Final = "127.0.0.1:50051"


@dataclass(frozen=True)
class Connection:
    """The address of a server, with secrets for it.

    Attributes:
        target: HOST:PORT, or unix:PATH of a socket.
        token: names the caller; empty where none is needed.
        tls_ca: PEM certificates that the server's must go back to; None for a server without TLS.
        tls_cert: PEM certificate of the caller, and the chain above it.
        tls_key: PEM, its private key.
        insecure: whether the token may cross a network in the clear.
    """

    target: str = DEFAULT_TARGET
    token: str = field(default="", repr=False)
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        """Refuse a connection that leaks secrets or makes no sense."""
        if self.target.startswith(":") or not self.target:
            raise InvalidRequestError(
                f"--target {self.target!r}: need HOST:PORT, such as {DEFAULT_TARGET}, or unix:PATH of a socket"
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InvalidRequestError("--tls-cert and --tls-key: one needs the other")
        if self.tls_cert and not self.tls_ca:
            raise InvalidRequestError("--tls-cert: needs --tls-ca, the certificates that the server's must go back to")
        if self.token and not (self.token.isascii() and self.token.isprintable()):
            raise InvalidRequestError("--token: has characters that no token has")
        if self.token and not (self.tls_ca or self.insecure or is_loopback(self.target)):
            raise InvalidRequestError(
                f"--token: everybody on the way to {self.target} could read it: give --tls-ca, or say --insecure"
            )
