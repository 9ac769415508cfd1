"""Memory that decoding a picture takes, by its header.

It is known before anything is decoded, so that a picture can be refused or made to wait.
Where the header is at the very start, `quick_cost` takes microseconds, whatever the file; `read_cost` opens the others.
"""

import math
import struct
from dataclasses import dataclass
from typing import Final

from regraft.image.decode import LeastSize, read_header
from regraft.image.jpeg_scans import FRAMES, SCAN
from regraft.image.limits import ImageLimits
from regraft.image.png_chunks import SIGNATURE

_COPIES: Final = 3
"""Copies of the encoded bytes: the message's, the request's, the decoder's own; of a JPEG one less."""

_BYTES_A_PIXEL: Final = {"PNG": 13, "WEBP": 21, "GIF": 8, "BMP": 8, "TIFF": 14, "AVIF": 16}
"""Peak bytes a pixel of each format's worst mode, turned upright; measured by `benchmarks.decoding_cost`."""

_OPAQUE_PNG: Final = (0, 2)
"""PNG colour types without palette and alpha."""
_OPAQUE_PNG_BYTES: Final = 9
_OUT_BYTES: Final = 12
"""Bytes a pixel of a decoded JPEG: simplejpeg's, Pillow's, and once more where it is turned."""
_COEFFICIENT_BYTES: Final = 2
_ROW_BYTES: Final = 0.1
"""Bytes a pixel of a JPEG that is decoded row by row."""
_SCALES: Final = (8, 4, 2, 1)
"""Factors by which a JPEG may be scaled down as it is decoded."""
_MOST_SEGMENTS: Final = 100
_ROW_BY_ROW: Final = (0xC0, 0xC1, 0xC9)


@dataclass(frozen=True)
class DecodingCost:
    """Pixels of a picture, and bytes of memory that it takes.

    Attributes:
        pixels: of the whole picture.
        encoded_bytes: of the file, in all its copies.
        decoded_bytes: at the peak of decoding it.
    """

    pixels: int
    encoded_bytes: int
    decoded_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Both together."""
        return self.encoded_bytes + self.decoded_bytes


def quick_cost(data: bytes, least: LeastSize) -> DecodingCost | None:
    """Return the cost by the first bytes, or None: see `read_cost`."""
    if data.startswith(b"\xff\xd8"):
        return _cost_of_jpeg(data, least)
    if data.startswith(SIGNATURE) and len(data) > 33:
        width, height, bits, colours = struct.unpack_from(">IIBB", data, 16)
        is_plain = bits <= 8 and colours in _OPAQUE_PNG
        return _cost(data, width * height, _OPAQUE_PNG_BYTES if is_plain else _BYTES_A_PIXEL["PNG"])
    if data[8:12] == b"WEBP" and (pixels := _pixels_of_webp(data)):
        return _cost(data, pixels, _BYTES_A_PIXEL["WEBP"])
    return None


def read_cost(data: bytes, limits: ImageLimits) -> DecodingCost:
    """Return the cost of a picture of any format.

    It opens the picture, which takes a while: not on an event loop.

    Raises:
        InvalidImageError: the bytes are no picture that is read here, or over the limits; the text says which.
    """
    form, (width, height) = read_header(data, limits)
    return _cost(data, width * height, _BYTES_A_PIXEL.get(form, 2 * _OUT_BYTES))


def _cost(data: bytes, pixels: int, each: float) -> DecodingCost:
    return DecodingCost(pixels, _COPIES * len(data), round(each * pixels))


def _cost_of_jpeg(data: bytes, least: LeastSize) -> DecodingCost | None:
    """Return the cost by frame and first scan, or None."""
    start, frame = 2, b""
    marker = kind = 0
    for _ in range(_MOST_SEGMENTS):
        while data[start : start + 2] == b"\xff\xff":
            start += 1
        if start + 4 > len(data) or data[start] != 0xFF:
            return None
        marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4], "big")
        body = data[start + 4 : start + 2 + min(length, 32)]
        if marker in FRAMES:
            kind, frame = marker, body
        if marker == SCAN:
            break
        start += 2 + length
    if marker != SCAN or len(frame) < 6 or not body:
        return None
    height, width, components = struct.unpack_from(">HHB", frame, 1)
    pixels = width * height
    width_least, height_least = least((width, height))
    room = min(width // max(1, width_least), height // max(1, height_least))
    scale = next(scale for scale in _SCALES if scale <= max(1, room))
    scaled = math.ceil(width / scale) * math.ceil(height / scale)
    in_rows = kind in _ROW_BY_ROW and body[0] == components
    each = _ROW_BYTES if in_rows else _COEFFICIENT_BYTES * components + _ROW_BYTES
    return DecodingCost(pixels, (_COPIES - 1) * len(data), _OUT_BYTES * scaled + round(each * pixels))


def _pixels_of_webp(data: bytes) -> int:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return (int.from_bytes(data[24:27], "little") + 1) * (int.from_bytes(data[27:30], "little") + 1)
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return int((width & 0x3FFF) * (height & 0x3FFF))
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    return 0
