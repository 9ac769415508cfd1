"""Chunks of a PNG: checksums, and which ones are needed."""

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from regraft.errors import InvalidImageError

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PIXELS: Final = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_ORIENTATION: Final = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Keywords of texts that may tell the orientation."""


class _Chunk(NamedTuple):
    """A chunk: name, body, and all of its bytes."""

    name: bytes
    body: memoryview
    whole: memoryview


def strip_metadata(data: bytes) -> bytes:
    """Return a PNG of its pixels and their orientation alone.

    The orientation comes first. Metadata may be of any size, and damaged: no pixel depends on it. Animations become
    their default image.

    Raises:
        InvalidImageError: a checksum is wrong, the data end in the middle of a pixel chunk, or it needs a chunk that is
            not known here.
    """
    chunks = [chunk for chunk in _chunks(data) if _is_needed(chunk) and _is_whole(chunk)]
    chunks.sort(key=lambda chunk: chunk.name in (b"IDAT", b"IEND"))
    return b"".join([SIGNATURE, *(chunk.whole for chunk in chunks)])


def bits_a_channel(data: bytes) -> int:
    """Return the bits a channel, by the header of a PNG."""
    return data[24] if len(data) > 24 else 0


def _chunks(data: bytes) -> Iterator[_Chunk]:
    view, start = memoryview(data), len(SIGNATURE)
    while start + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            if name in _PIXELS[:-1]:
                raise InvalidImageError("the image cannot be decoded: image file is truncated")
            return
        yield _Chunk(name, view[start + 8 : end - 4], view[start:end])
        if name == b"IEND":
            return
        start = end


def _is_needed(chunk: _Chunk) -> bool:
    if chunk.name in _PIXELS or chunk.name == b"eXIf":
        return True
    if chunk.name in (b"tEXt", b"zTXt", b"iTXt"):
        return bytes(chunk.body[:32]).startswith(_ORIENTATION)
    if not chunk.name[0] & 0x20:  # an upper-case first letter: without it the pixels make no sense
        raise InvalidImageError(f"the image cannot be decoded: its {_text(chunk)} chunk is not known here: convert it")
    return False


def _is_whole(chunk: _Chunk) -> bool:
    """Compare a chunk with its checksum; only metadata may differ."""
    if zlib.crc32(chunk.whole[4:-4]) == int.from_bytes(chunk.whole[-4:], "big"):
        return True
    if chunk.name in _PIXELS:
        raise InvalidImageError(f"the image cannot be decoded: the checksum of its {_text(chunk)} chunk is wrong")
    return False


def _text(chunk: _Chunk) -> str:
    return chunk.name.decode("ascii", "backslashreplace")
