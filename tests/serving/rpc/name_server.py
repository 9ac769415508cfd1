"""A name server that knows one name, whose addresses a test may change."""

import socket
import struct
import threading
from types import TracebackType
from typing import Final, Self

_A: Final = 1
_HEADER_BYTES: Final = 12


class NameServer:
    """Answers every question for an address (RFC 1035) with ``addresses``, until the block ends."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", _HEADER_BYTES) + 5  # of the question: its name, type and class
        (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
        addresses = self.addresses if kind == _A else []
        header = query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(addresses), 0, 0)
        records = [
            struct.pack(">HHHIH", 0xC000 | _HEADER_BYTES, _A, 1, 0, 4) + socket.inet_aton(address)
            for address in addresses
        ]
        return header + query[_HEADER_BYTES:end] + b"".join(records)
