"""Enveloped messages in a body.

Each follows a byte of flags and its length, 4 bytes.
"""

import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from sys import maxsize
from typing import Any, Final

from regraft.errors import InvalidRequestError
from serving.http.exchange import Exchange, TooLargeError

_HEAD: Final = struct.Struct(">BI")


def envelope(flags: int, data: bytes) -> bytes:
    """Return a message with what goes before it."""
    return _HEAD.pack(flags, len(data)) + data


async def messages_of(
    exchange: Exchange,
    parse: Callable[[bytes], Any],
    most_bytes: int,
    is_stream: bool,
    decode: Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]] | None = None,
) -> AsyncGenerator[Any, None]:
    """Yield the messages of a body, and an error for bad bytes.

    Args:
        exchange: whose body it is.
        parse: makes a message, or an error, of bytes.
        most_bytes: of one message.
        is_stream: whether more than one may come.
        decode: makes the envelopes of what came; they are it if not given.
    """
    buffer = bytearray()
    chunks = exchange.chunks(maxsize if is_stream else _HEAD.size + round(most_bytes * (4 / 3 if decode else 1)))
    async for chunk in decode(chunks) if decode else chunks:
        buffer += chunk
        while len(buffer) >= _HEAD.size:
            flags, length = _HEAD.unpack_from(buffer)
            if flags:
                yield InvalidRequestError(f"an envelope with the flags {flags}: messages come as they are, by flags 0")
                return
            if length > most_bytes:
                yield TooLargeError(f"a message of {length} bytes; it may take {most_bytes} (REGRAFT_MAX_IMAGE_BYTES)")
                return
            if len(buffer) < _HEAD.size + length:
                break
            data = bytes(memoryview(buffer)[_HEAD.size : _HEAD.size + length])
            del buffer[: _HEAD.size + length]
            yield parse(data)
            del data
    if buffer:
        yield InvalidRequestError(f"the body ends within a message, of which {len(buffer)} bytes came")
