"""TLS of a port, from files that may change."""

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import grpc

from regraft.errors import OperatorError
from regraft.files import file_stamp

log = logging.getLogger("regraft.tls")

T = TypeVar("T")


@dataclass(frozen=True)
class TlsFiles:
    """PEM files.

    Attributes:
        cert: the server's certificate, and the chain above it.
        key: its private key, not encrypted.
        client_ca: what clients' certificates must go back to; None asks clients for none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    def stamps(self) -> tuple[tuple[int, ...], ...]:
        """Return what changes with the files."""
        return tuple(file_stamp(path) for path in (self.cert, self.key, self.client_ca) if path)

    def context(self) -> ssl.SSLContext:
        """Read all of them, for Python's own connections.

        Raises:
            OperatorError: a file cannot be read, or they do not fit together; the text names the flag.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key, password="")  # an encrypted key shall not ask the terminal
        except (OSError, ValueError) as error:
            raise OperatorError(f"--tls-cert {self.cert}, --tls-key {self.key}: {_reason(error)}") from error
        if self.client_ca:
            try:
                context.load_verify_locations(self.client_ca)
            except OSError as error:
                raise OperatorError(f"--tls-client-ca {self.client_ca}: {_reason(error)}") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Read all of them, for gRPC; see `context`."""
        self.context()
        pairs = [(self.key.read_bytes(), self.cert.read_bytes())]
        return grpc.ssl_server_certificate_configuration(pairs, self.client_ca.read_bytes() if self.client_ca else None)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no certificate and key in PEM that belong together ({error.reason or error})"
    return getattr(error, "strerror", None) or "the key must not be encrypted"


class _Reloading(Generic[T]):
    """Files of TLS, and what is made of them after each change.

    A bad file is logged once.
    """

    def __init__(self, files: TlsFiles, make: Callable[[], T]) -> None:
        self._files = files
        self._make = make
        self._stamps = files.stamps()  # before they are read, so that no change is missed

    def changed(self) -> T | None:
        """Return what is made of changed files, or None."""
        return self.reloaded() if self._files.stamps() != self._stamps else None

    def reloaded(self) -> T | None:
        """Return what is made of the files now, or None.

        None stands for files that cannot be used; either is logged.
        """
        self._stamps = self._files.stamps()
        try:
            made = self._make()
        except (OperatorError, OSError) as error:
            log.error("%s; the TLS files read before are still used", error)
            return None
        log.info("%s and what belongs to it were read again", self._files.cert)
        return made


class ReloadingTls:
    """TLS of a gRPC port, from files that may change.

    They are read again at the next connection after a change.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Read the files.

        Raises:
            OperatorError: they cannot be used as they are now.
        """
        self._files = _Reloading(files, files.read)
        self._reloaded: grpc.ServerCertificateConfiguration | None = None
        self.credentials = grpc.dynamic_ssl_server_credentials(
            files.read(),
            self._changed,  # type: ignore[arg-type]  # None is allowed, and means no change; the stubs do not know
            require_client_authentication=files.client_ca is not None,
        )

    def reload(self) -> None:
        """Read the files again, and log the outcome."""
        self._reloaded = self._files.reloaded()

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return a new configuration at a handshake, or None for the present one."""
        reloaded, self._reloaded = self._reloaded, None
        return self._files.changed() or reloaded


class ReloadingContext:
    """TLS of Python's own connections, from files that may change.

    `refresh` reads them again.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Read the files; see `ReloadingTls`."""
        self._files = _Reloading(files, files.context)
        self._present = self.context = files.context()
        self.context.sni_callback = self._choose

    def refresh(self) -> None:
        """Read the files again if they have changed."""
        self._present = self._files.changed() or self._present

    def reload(self) -> None:
        """Read the files again, and log the outcome."""
        self._present = self._files.reloaded() or self._present

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Give a handshake the present files."""
        connection.context = self._present
