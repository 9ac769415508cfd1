"""Small files that say that they are huge pictures."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Final

from PIL import Image


def _encoded(form: str, **options: bool) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form, **options)
    return buffer.getvalue()


def _png() -> bytes:
    """Return 30,000 x 30,000 px of grey, whole and valid: 900 MB in memory, 2.7 GB as RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(100 * 30_001)) for _ in range(300)) + packer.flush()
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _tiff() -> bytes:
    """Return a TIFF whose width and height (tags 256 and 257) are 60,000."""
    data = _encoded("TIFF")
    for tag in (256, 257):
        at = next(at for kind in (3, 4) if (at := data.find(struct.pack("<HHI", tag, kind, 1))) >= 0)
        data = data[:at] + struct.pack("<HHII", tag, 4, 1, 60_000) + data[at + 12 :]
    return data


def _gif(position: Callable[[bytes], int]) -> bytes:
    """Return a GIF where the width and height at a position are 65,535."""
    data = _encoded("GIF")
    at = position(data)
    return data[:at] + b"\xff" * 4 + data[at + 4 :]


def _webp() -> bytes:
    """Return a lossless WebP whose width and height, 14 bits each, are 16,384."""
    data = _encoded("WEBP", lossless=True)
    at = data.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", data, at)
    return data[:at] + struct.pack("<I", bits | 0xFFFFFFF) + data[at + 4 :]


BOMBS: Final[dict[str, Callable[[], bytes]]] = {
    "PNG": _png,
    "TIFF": _tiff,
    "GIF": lambda: _gif(lambda _data: 6),
    "GIF of a huge frame": lambda: _gif(lambda data: data.index(b",\0\0\0\0") + 5),
    "WebP": _webp,
}
