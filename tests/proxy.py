"""An HTTP proxy that lets nothing through, and remembers what it was asked for."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

VARIABLES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


class RecordingProxy:
    """Answers 403 on a free port until the block ends; ``requests`` has the first line of each request."""

    def __enter__(self) -> Self:
        self.requests: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # which ends the accept that the thread waits in
        self._thread.join()
        self._socket.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What sends every library that heeds proxies here, with a user and a password."""
        return dict.fromkeys(VARIABLES, f"http://ada:secret@{self.address}")

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection, suppress(OSError):
                    connection.settimeout(10)
                    self.requests.append(connection.recv(4096).split(b"\r\n")[0].decode("latin-1"))
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
