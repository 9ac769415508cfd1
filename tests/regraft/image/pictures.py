"""Pictures of every format, mode and orientation, for the tests of this folder."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from regraft.image.spec import ImageSpec, Interpolation, ResizeRule

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
RULES: tuple[ResizeRule, ...] = ("crop", "squash", "pad")
INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "bicubic", "lanczos")
SMALL = ImageSpec(resize="squash", resize_px=4, crop_px=4, interpolation="bilinear")
ORIENTATION = 0x0112
# What a camera that is held so that the tag has this value stores instead of the upright picture.
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:  # noqa: ANN401 - each format has its own
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def plain(mode: str, colour: int | tuple[int, ...], side_px: int = 16) -> Image.Image:
    return Image.new(mode, (side_px, side_px), colour)


def quadrants() -> Image.Image:
    """60 x 40: red, green above blue, yellow."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:] = (255, 0, 0), (0, 255, 0)
    pixels[20:, :30], pixels[20:, 30:] = (0, 0, 255), (255, 255, 0)
    return Image.fromarray(pixels)


def waves(width: int, height: int) -> Image.Image:
    """A smooth picture, so that decoding at a smaller scale loses next to nothing."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (np.sin(x / 90), np.cos(y / 70), np.sin((x + y) / 130))
    return Image.fromarray(np.stack([128 + 100 * wave for wave in channels], -1).astype(np.uint8))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds none."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def distance(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    assert one.shape == other.shape
    return np.abs(one.astype(np.int64) - other.astype(np.int64))


def grey_16_bit(byte_order: Literal["<", ">"]) -> Image.Image:
    return Image.fromarray(np.full((16, 16), 0xC8FF, np.dtype(np.uint16).newbyteorder(byte_order)))


def palette_picture() -> Image.Image:
    picture = plain("P", 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    return picture


# Columns: the picture, its format, options of the encoder, the mode it opens in, the colour it must get.
MODES: dict[str, tuple[Callable[[], Image.Image], str, dict[str, Any], str, tuple[int, int, int]]] = {
    "1 bit": (lambda: plain("1", 1), "PNG", {}, "1", (255, 255, 255)),
    "1 bit TIFF": (lambda: plain("1", 0), "TIFF", {}, "1", (0, 0, 0)),
    "grey": (lambda: plain("L", 77), "PNG", {}, "L", (77, 77, 77)),
    "grey JPEG": (lambda: plain("L", 77), "JPEG", {}, "L", (77, 77, 77)),
    "grey, opaque": (lambda: plain("LA", (77, 255)), "PNG", {}, "LA", (77, 77, 77)),
    "grey, half transparent": (lambda: plain("LA", (77, 51)), "PNG", {}, "LA", (219, 219, 219)),
    "grey, one level transparent": (lambda: plain("L", 77), "PNG", {"transparency": 77}, "L", (255, 255, 255)),
    "palette": (palette_picture, "PNG", {}, "P", (200, 100, 50)),
    "palette, this entry transparent": (palette_picture, "PNG", {"transparency": 1}, "P", (255, 255, 255)),
    "palette, another transparent": (palette_picture, "PNG", {"transparency": 0}, "P", (200, 100, 50)),
    "palette, entry half transparent": (palette_picture, "PNG", {"transparency": b"\0\x33"}, "P", (244, 224, 214)),
    "palette GIF": (palette_picture, "GIF", {}, "P", (200, 100, 50)),
    "palette GIF, transparent": (palette_picture, "GIF", {"transparency": 1}, "P", (255, 255, 255)),
    "RGB, one colour transparent": (
        lambda: plain("RGB", (1, 2, 3)),
        "PNG",
        {"transparency": (1, 2, 3)},
        "RGB",
        (255, 255, 255),
    ),
    "RGBA, opaque": (lambda: plain("RGBA", (200, 100, 50, 255)), "PNG", {}, "RGBA", (200, 100, 50)),
    "RGBA, transparent": (lambda: plain("RGBA", (200, 100, 50, 0)), "PNG", {}, "RGBA", (255, 255, 255)),
    "RGBA, a fifth opaque": (lambda: plain("RGBA", (200, 100, 50, 51)), "PNG", {}, "RGBA", (244, 224, 214)),
    "RGBA TIFF": (lambda: plain("RGBA", (200, 100, 50, 51)), "TIFF", {}, "RGBA", (244, 224, 214)),
    "RGBA WebP": (
        lambda: plain("RGBA", (200, 100, 50, 51)),
        "WEBP",
        {"lossless": True, "exact": True},
        "RGBA",
        (244, 224, 214),
    ),
    "CMYK JPEG": (lambda: plain("CMYK", (55, 155, 205, 0)), "JPEG", {"quality": 95}, "CMYK", (200, 100, 50)),
    "CMYK TIFF": (lambda: plain("CMYK", (55, 155, 205, 0)), "TIFF", {}, "CMYK", (200, 100, 50)),
    "YCbCr JPEG": (
        lambda: plain("RGB", (200, 100, 50)).convert("YCbCr"),
        "JPEG",
        {"quality": 95},
        "RGB",
        (200, 100, 50),
    ),
    "YCbCr TIFF": (lambda: plain("RGB", (200, 100, 50)).convert("YCbCr"), "TIFF", {}, "YCbCr", (200, 100, 50)),
    "16-bit grey PNG": (lambda: grey_16_bit("<"), "PNG", {}, "I;16", (0xC8, 0xC8, 0xC8)),
    "16-bit grey TIFF": (lambda: grey_16_bit("<"), "TIFF", {}, "I;16", (0xC8, 0xC8, 0xC8)),
    "16-bit grey TIFF, big-endian": (lambda: grey_16_bit(">"), "TIFF", {}, "I;16B", (0xC8, 0xC8, 0xC8)),
}


def stored(upright: Image.Image, orientation: int, file_format: str, **options: Any) -> bytes:  # noqa: ANN401 - as above
    """A picture as a camera stores it that is held so."""
    transpose = STORED_AS[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(upright if transpose is None else upright.transpose(transpose), file_format, exif=exif, **options)
