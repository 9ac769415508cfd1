"""HTTP/2 by hand, for clients as bad as no library lets one be."""

import select
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA: Final = 0
_HEADERS: Final = 1
_RST_STREAM: Final = 3
_SETTINGS: Final = 4
_PING: Final = 6
_GOAWAY: Final = 7
_WINDOW_UPDATE: Final = 8
_INITIAL_WINDOW: Final = 4
_FIRST_WINDOW: Final = 65_535
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
        self._initial_window = _FIRST_WINDOW
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

    def upload(self, streams: Sequence[int], announced: int, each: int, *, seconds: float) -> int:
        """Send ``each`` bytes of a message of ``announced`` in every stream, as far as the server takes them in time.

        Returns:
            How many bytes it took.
        """
        windows, room = dict.fromkeys(streams, _FIRST_WINDOW), _FIRST_WINDOW
        left = {stream: memoryview(struct.pack(">BI", 0, announced) + bytes(each)) for stream in streams}
        updates: defaultdict[int, int] = defaultdict(int)
        sent, end_s = 0, time.monotonic() + seconds
        while left and time.monotonic() < end_s:
            for stream in list(left):
                part = left[stream][: max(0, min(windows[stream], room, _MOST_OF_A_FRAME))]
                if not part:
                    continue
                self._socket.sendall(_frame(_DATA, 0, stream, bytes(part)))
                left[stream] = left[stream][len(part) :]
                windows[stream] -= len(part)
                room -= len(part)
                sent += len(part)
                if not left[stream]:
                    del left[stream]
            updates.clear()
            self._take_updates(updates, left, wait_s=0.0 if any(windows[s] > 0 for s in left) and room > 0 else 0.05)
            room += updates.pop(0, 0)
            for stream, more in updates.items():
                for each_stream in streams if stream < 0 else (stream,):
                    windows[each_stream] += more
        return sent

    def _take_updates(self, updates: dict[int, int], left: dict[int, memoryview], *, wait_s: float) -> None:
        """Add what the server lets one send more, by stream; 0 is the connection, -1 every stream."""
        while select.select([self._socket], [], [], wait_s)[0]:
            head = self._socket.recv(9, socket.MSG_WAITALL)
            if len(head) < 9:
                left.clear()
                return
            body = self._socket.recv(int.from_bytes(head[:3]), socket.MSG_WAITALL) if any(head[:3]) else b""
            kind, stream = head[3], int.from_bytes(head[5:])
            if kind == _WINDOW_UPDATE:
                updates[stream] += int.from_bytes(body)
            elif kind == _RST_STREAM or (kind == _HEADERS and head[4] & 1):
                left.pop(stream, None)  # it was refused
            elif kind == _SETTINGS and not head[4] & _ACK:
                for start in range(0, len(body), 6):
                    if int.from_bytes(body[start : start + 2]) == _INITIAL_WINDOW:
                        updates[-1] += int.from_bytes(body[start + 2 : start + 6]) - self._initial_window
                        self._initial_window = int.from_bytes(body[start + 2 : start + 6])
                self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not head[4] & _ACK:
                self._socket.sendall(_frame(_PING, _ACK, 0, body))
            wait_s = 0.0

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
