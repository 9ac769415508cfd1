"""HTTP/2 by hand, for clients as bad as no library lets one be."""

import socket
import struct
from contextlib import suppress
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA: Final = 0
_HEADERS: Final = 1
_SETTINGS: Final = 4
_PING: Final = 6
_GOAWAY: Final = 7
_ACK: Final = 1
_END_HEADERS: Final = 4
_MOST_OF_A_FRAME: Final = 16_384


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """Return a header field as HPACK has it without table and without Huffman's code; both shorter than 127 bytes."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


class RawConnection:
    """A connection that says that it speaks HTTP/2, and then only what it is told to; close it when done."""

    def __init__(self, target: str) -> None:
        """Connect to host:port, and send what every client begins with."""
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        self._next_stream = 1
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))

    def call(self, method: str) -> int:
        """Begin a call of ``/package.Service/Method`` and return its stream, which is left open."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "hostile",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        block = b"".join(_literal(name, value) for name, value in fields.items())
        self._socket.sendall(_frame(_HEADERS, _END_HEADERS, stream, block))
        return stream

    def send(self, stream: int, message: bytes, *, announced: int | None = None, cut: int = 0) -> None:
        """Send a message that says that it has ``announced`` bytes; of the last DATA frame the last ``cut`` never come.

        No more than HTTP/2's first window, 65,535 bytes, may be sent: nothing that the server says is read.
        """
        body = struct.pack(">BI", 0, len(message) if announced is None else announced) + message
        parts = [body[start : start + _MOST_OF_A_FRAME] for start in range(0, len(body), _MOST_OF_A_FRAME)]
        frames = b"".join(_frame(_DATA, 0, stream, part) for part in parts)
        self._socket.sendall(frames[: len(frames) - cut])

    def wait_for_the_server(self) -> None:
        """Wait until the server has said something: its own settings, as soon as it has taken the connection in."""
        assert self._socket.recv(9), "the server hung up"

    def ping(self) -> bool:
        """Send a ping and return whether it was answered, rather than the connection ended."""
        self._socket.sendall(_frame(_PING, 0, 0, bytes(8)))
        with suppress(OSError):
            while (frame := self._read_frame()) is not None and frame[0] != _GOAWAY:
                if frame == (_PING, _ACK):
                    return True
        return False

    def _read_frame(self) -> tuple[int, int] | None:
        """Return the kind and the flags of the next frame; None where there is none any more."""
        head = self._socket.recv(9, socket.MSG_WAITALL)
        if len(head) < 9:
            return None
        size_bytes = int.from_bytes(head[:3])
        if size_bytes:
            self._socket.recv(size_bytes, socket.MSG_WAITALL)
        return head[3], head[4]

    def close(self) -> None:
        """Go without a word."""
        self._socket.close()
