"""Table of picture formats: `regraft.image.decode` beside a second decoder.

Every format, bit depth, colour model and orientation.

``python -m benchmarks.formats > docs/images.md``. The second decoder is imagecodecs, with tifffile for the layout of
TIFFs; what it gives is brought to RGB here by the rules that the page states, in numpy alone.
"""

import io
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from regraft.errors import InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.spec import ImageSpec

Pixels = npt.NDArray[Any]
SIDE_PX: Final = 64
SPEC: Final = ImageSpec("squash", SIDE_PX, SIDE_PX, "bilinear")
"""Leaves pictures of this size as they are."""

ROUNDING: Final = 3
"""Levels by which decoders of more than 8 bits, and conversions of colour, may differ."""

_TURNS: Final[dict[int, Callable[[Pixels], Pixels]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""What puts a picture upright that is stored with an EXIF orientation."""


@dataclass(frozen=True)
class Case:
    """A file, what it holds, and what the second decoder makes of it, as RGB."""

    file_format: str
    what: str
    data: bytes
    expected: Pixels


@dataclass(frozen=True)
class Row:
    """How a case ended: the largest difference in levels of 255, or why it was refused."""

    case: Case
    difference: int | None
    refused: str = ""

    @property
    def said(self) -> str:
        """The end in words."""
        if self.difference is None:
            return f"refused: {self.refused}"
        if self.difference > ROUNDING:
            return f"differs by {self.difference} of 255 levels"
        return f"within {ROUNDING} of 255 levels" if self.difference else "the same pixels"


def compare(case: Case) -> Row:
    """Decode a case and compare it."""
    try:
        crop = decode_crop(case.data, SPEC)
    except InvalidImageError as error:
        return Row(case, None, str(error))
    return Row(case, int(np.abs(crop.astype(int) - case.expected.astype(int)).max()))


def scene(channels: int, bits: int) -> Pixels:
    """Return a picture of ramps and edges, [64, 64, channels], over the whole range of so many bits."""
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    ramps = [x * 4, y * 4, (x + y) * 2, 255 - x * 2 - y]
    levels = np.stack(ramps[:channels], -1) * (2**bits - 1) // 255
    levels[20:40, 20:40] = 2**bits - 1 - levels[20:40, 20:40]
    return np.asarray(levels.astype(np.uint16 if bits > 8 else np.uint8))


def to_rgb(levels: Pixels, bits: int, *, transparent: Pixels | None = None) -> Pixels:
    """Bring levels of the second decoder, grey or RGB with or without alpha, to RGB by the rules of the page."""
    eight = _eight_bits(levels, bits)
    if eight.ndim == 2:
        eight = eight[..., None]
    if eight.shape[2] in (2, 4) and transparent is None:
        eight, transparent = eight[..., :-1], eight[..., -1:]
    rgb = np.repeat(eight, 3, axis=2) if eight.shape[2] == 1 else eight
    if transparent is None:
        return rgb
    alpha = transparent.astype(np.float64) / 255
    return np.asarray(np.round(rgb * alpha + 255 * (1 - alpha)).astype(np.uint8))


def _eight_bits(levels: Pixels, bits: int) -> Pixels:
    if bits > 8:
        return np.asarray((levels.astype(np.uint16) >> (bits - 8)).astype(np.uint8))
    return np.asarray((levels.astype(np.uint16) * 255 // (2**bits - 1)).astype(np.uint8))


def from_cmyk(levels: Pixels) -> Pixels:
    """Return RGB by the plain rule: of white, cyan, magenta and yellow leave their part, and of that black."""
    left = 255 - levels.astype(np.float64)
    return np.asarray(np.round(left[..., :3] * left[..., 3:] / 255).astype(np.uint8))


def from_lab(levels: Pixels) -> Pixels:
    """Return sRGB of CIE Lab as TIFF stores it, by its white point D50 (ICC), Bradford adaptation included."""
    lightness = levels[..., 0].astype(float) * 100 / 255
    a, b = np.moveaxis(np.ascontiguousarray(levels[..., 1:]).view(np.int8).astype(float), -1, 0)
    f = np.stack([(lightness + 16) / 116 + a / 500, (lightness + 16) / 116, (lightness + 16) / 116 - b / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1, 0.8249)
    to_srgb = [[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]]
    linear = np.clip(xyz @ np.transpose(to_srgb), 0, 1)
    return np.asarray(
        np.round(255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)).astype(
            np.uint8
        )
    )


def _saved(image: Image.Image, file_format: str, **options: Any) -> bytes:  # noqa: ANN401 - each format has its own
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png(levels: Pixels, bits: int, colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Write a PNG of any bit depth and colour type, which Pillow cannot."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = levels.shape[:2]
    rows = []
    for row in levels.reshape(height, -1):
        if bits == 16:
            rows.append(row.astype(">u2").tobytes())
        else:
            flags = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
            rows.append(np.packbits(flags.ravel()).tobytes())
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    middle = b"".join(chunk(name, body) for name, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(levels: Pixels, **options: Any) -> bytes:  # noqa: ANN401 - tifffile's own
    """Write a TIFF of any layout."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, levels, **options)
    return buffer.getvalue()


def jpegs() -> Iterator[Case]:
    """Yield JPEGs of every colour model."""
    colour, grey = Image.fromarray(scene(3, 8)), Image.fromarray(scene(1, 8)[..., 0])
    files = {
        "8 bits, grey": _saved(grey, "JPEG", quality=90),
        "8 bits, YCbCr 4:4:4": _saved(colour, "JPEG", quality=90, subsampling=0),
        "8 bits, YCbCr 4:2:2": _saved(colour, "JPEG", quality=90, subsampling=1),
        "8 bits, YCbCr 4:2:0": _saved(colour, "JPEG", quality=90, subsampling=2),
        "8 bits, RGB": _saved(colour, "JPEG", quality=90, keep_rgb=True),
        "8 bits, progressive": _saved(colour, "JPEG", quality=90, progressive=True),
        "8 bits, restart markers": _saved(colour, "JPEG", quality=90, restart_marker_blocks=3),
    }
    for what, data in files.items():
        yield Case("JPEG", what, data, to_rgb(imagecodecs.jpeg8_decode(data), 8))
    cmyk = _saved(Image.fromarray(scene(4, 8), "CMYK"), "JPEG", quality=90)
    yield Case("JPEG", "8 bits, CMYK", cmyk, from_cmyk(255 - imagecodecs.jpeg8_decode(cmyk, outcolorspace="cmyk")))
    yield Case(
        "JPEG", "12 bits, grey", bytes(imagecodecs.jpeg8_encode(scene(1, 12)[..., 0], bitspersample=12)), scene(3, 8)
    )


def pngs() -> Iterator[Case]:
    """Yield PNGs of every bit depth and colour type."""
    for bits in (1, 2, 4, 8, 16):
        grey = scene(1, bits)[..., 0]
        yield Case("PNG", f"{bits} bits, grey", png(grey, bits, 0), _second_png(png(grey, bits, 0), bits))
    for bits in (1, 2, 4, 8):
        index = scene(1, bits)[..., 0]
        palette = np.arange(3 * 2**bits).reshape(-1, 3) * 37 % 256
        data = png(index, bits, 3, (b"PLTE", palette.astype(np.uint8).tobytes()))
        yield Case("PNG", f"{bits} bits, palette", data, palette[index].astype(np.uint8))
        alpha = np.linspace(0, 255, 2**bits).astype(np.uint8)
        clear = png(index, bits, 3, (b"PLTE", palette.astype(np.uint8).tobytes()), (b"tRNS", alpha.tobytes()))
        expected = to_rgb(palette[index], 8, transparent=alpha[index][..., None])
        yield Case("PNG", f"{bits} bits, palette with transparency", clear, expected)
    for bits in (8, 16):
        for colour_type, channels, name in ((2, 3, "RGB"), (4, 2, "grey with alpha"), (6, 4, "RGB with alpha")):
            data = png(scene(channels, bits), bits, colour_type)
            yield Case("PNG", f"{bits} bits, {name}", data, _second_png(data, bits))
        clear_level = int(scene(1, bits)[0, 30, 0])
        data = png(scene(1, bits)[..., 0], bits, 0, (b"tRNS", struct.pack(">H", clear_level)))
        shown = to_rgb(scene(1, bits)[..., 0], bits)
        shown[scene(1, bits)[..., 0] == clear_level] = 255
        yield Case("PNG", f"{bits} bits, grey, one level transparent", data, shown)
        clear = scene(3, bits)[0, 30]
        data = png(scene(3, bits), bits, 2, (b"tRNS", struct.pack(">HHH", *map(int, clear))))
        shown = to_rgb(scene(3, bits), bits)
        shown[(scene(3, bits) == clear).all(-1)] = 255
        yield Case("PNG", f"{bits} bits, RGB, one colour transparent", data, shown)
    sensor = scene(1, 12)[..., 0]
    yield Case("PNG", "16 bits of which 12 are used, grey", png(sensor, 16, 0), to_rgb(sensor, 12))
    yield Case("PNG", "16 bits of which 12 are used, RGB", png(scene(3, 12), 16, 2), to_rgb(scene(3, 12), 12))
    yield Case("PNG", "16 bits of which 8 are used, grey", png(scene(1, 8)[..., 0], 16, 0), to_rgb(scene(1, 8), 8))


def _second_png(data: bytes, bits: int) -> Pixels:
    decoded = np.asarray(imagecodecs.png_decode(data))
    return to_rgb(
        decoded, 16 if decoded.dtype == np.uint16 else 8 if bits >= 8 or decoded.max() > 2**bits - 1 else bits
    )


def others() -> Iterator[Case]:
    """Yield WebP, GIF, BMP and AVIF."""
    colour, alpha = Image.fromarray(scene(3, 8)), Image.fromarray(scene(4, 8), "RGBA")
    grey, palette = Image.fromarray(scene(1, 8)[..., 0]), colour.quantize(64)
    files = {
        "8 bits, RGB": _saved(colour, "WEBP", quality=90),
        "8 bits, RGB, lossless": _saved(colour, "WEBP", lossless=True),
        "8 bits, RGB with alpha": _saved(alpha, "WEBP", lossless=True, exact=True),
    }
    for what, data in files.items():
        yield Case("WebP", what, data, to_rgb(imagecodecs.webp_decode(data), 8))
    indexed = np.asarray(palette.convert("RGB"))
    for what, image in {"palette": palette, "grey": grey}.items():
        for interlace in (0, 1):
            data = _saved(image, "GIF", interlace=interlace)
            second = np.asarray(imagecodecs.gif_decode(data))
            yield Case("GIF", f"8 bits, {what}{', interlaced' * interlace}", data, second[..., :3].reshape(64, 64, 3))
    yield Case(
        "BMP", "1 bit", _saved(grey.convert("1"), "BMP"), to_rgb(np.asarray(grey.convert("1")).astype(np.uint8), 1)
    )
    yield Case("BMP", "8 bits, grey", _saved(grey, "BMP"), to_rgb(scene(1, 8), 8))
    yield Case("BMP", "8 bits, palette", _saved(palette, "BMP"), indexed)
    bmp = bytes(imagecodecs.bmp_encode(scene(3, 8)))
    yield Case("BMP", "8 bits, RGB", bmp, np.asarray(imagecodecs.bmp_decode(bmp)))
    for bits in (8, 10, 12):
        data = bytes(imagecodecs.avif_encode(scene(3, bits), level=90, speed=9, bitspersample=bits))
        yield Case("AVIF", f"{bits} bits, RGB", data, to_rgb(imagecodecs.avif_decode(data), bits))
    data = bytes(imagecodecs.avif_encode(scene(4, 8), level=95, speed=9))
    yield Case("AVIF", "8 bits, RGB with alpha", data, to_rgb(imagecodecs.avif_decode(data), 8))


_COMPRESSIONS: Final = (None, "packbits", "lzw", "zlib", "zstd", "lzma")
_NAMES: Final = {None: "none", "packbits": "PackBits", "lzw": "LZW", "zlib": "deflate", "zstd": "zstd", "lzma": "LZMA"}


def tiffs() -> Iterator[Case]:
    """Yield TIFFs of every bit depth, colour model, layout and compression."""
    for compression in _COMPRESSIONS:
        for bits in (8, 16):
            yield from _tiffs_of(bits, compression)
    for bits in (1, 2, 4, 12):
        grey = scene(1, bits)[..., 0]
        for photometric in ("minisblack", "miniswhite"):
            data = tiff(grey, photometric=photometric, bitspersample=bits)
            yield _tiff_case(f"{bits} bits, {_COLOURS[photometric]}", data, bits, photometric)
    for kind in (np.uint32, np.int32, np.float32, np.int16):
        data = tiff(scene(1, 8)[..., 0].astype(kind))
        name = f"{8 * kind().itemsize} bits, grey, {np.dtype(kind).name}"
        yield Case("TIFF", name, data, to_rgb(scene(1, 8), 8))
    sensor = scene(1, 12)[..., 0]
    yield Case("TIFF", "16 bits of which 12 are used, grey", tiff(sensor), to_rgb(sensor, 12))
    colours = tiff(scene(3, 12), photometric="rgb")
    yield Case("TIFF", "16 bits of which 12 are used, RGB", colours, to_rgb(scene(3, 12), 12))
    jpeg = tiff(scene(3, 8), photometric="ycbcr", compression="jpeg", subsampling=(2, 2))
    yield Case("TIFF", "8 bits, YCbCr 4:2:0, compression JPEG", jpeg, to_rgb(tifffile.imread(io.BytesIO(jpeg)), 8))
    jpeg = tiff(scene(1, 8)[..., 0], compression="jpeg")
    yield Case("TIFF", "8 bits, grey, compression JPEG", jpeg, to_rgb(tifffile.imread(io.BytesIO(jpeg)), 8))
    bilevel = Image.fromarray(scene(1, 8)[..., 0]).convert("1")
    for compression in ("group3", "group4"):
        data = _saved(bilevel, "TIFF", compression=compression)
        expected = to_rgb(tifffile.imread(io.BytesIO(data)).astype(np.uint8), 1)
        yield Case("TIFF", f"1 bit, grey, compression fax {compression}", data, expected)
    lab = scene(3, 8)
    lab[..., 0], lab[..., 1:] = 64 + lab[..., 0] // 2, (lab[..., 1:] // 16).astype(np.int8).view(np.uint8) - 8
    yield Case("TIFF", "8 bits, Lab", tiff(lab, photometric="cielab"), from_lab(lab))


_COLOURS: Final = {
    "minisblack": "grey",
    "miniswhite": "grey with 0 as white",
    "rgb": "RGB",
    "palette": "palette",
    "separated": "CMYK",
}


def _tiffs_of(bits: int, compression: str | None) -> Iterator[Case]:
    layouts: list[tuple[str, int, dict[str, Any]]] = [
        ("minisblack", 1, {}),
        ("minisblack", 1, {"byteorder": ">"}),
        ("minisblack", 1, {"tile": (16, 16)}),
        ("miniswhite", 1, {}),
        ("rgb", 3, {}),
        ("rgb", 3, {"byteorder": ">"}),
        ("rgb", 3, {"tile": (16, 16)}),
        ("rgb", 3, {"planarconfig": "separate"}),
        ("rgb", 3, {"planarconfig": "separate", "tile": (16, 16)}),
        ("rgb", 4, {"extrasamples": ["unassalpha"]}),
        ("separated", 4, {}),
        ("separated", 4, {"planarconfig": "separate"}),
    ]
    if compression in ("lzw", "zlib", "zstd"):
        layouts += [("minisblack", 1, {"predictor": 2}), ("rgb", 3, {"predictor": 2})]
    if bits == 8:
        colours = (np.arange(768).reshape(3, 256) * 257 * 37 % 65536).astype(np.uint16)
        layouts.append(("palette", 1, {"colormap": colours}))
    for photometric, channels, options in layouts:
        levels = scene(channels, bits)
        levels = levels[..., 0] if channels == 1 else levels
        if options.get("planarconfig") == "separate":
            levels = np.moveaxis(levels, -1, 0).copy()
        data = tiff(levels, photometric=photometric, compression=compression, rowsperstrip=16, **options)
        words = [f"{bits} bits", _COLOURS[photometric] + " with alpha" * ("extrasamples" in options)]
        words += ["separate planes"] * ("planarconfig" in options) + ["tiles"] * ("tile" in options)
        words += ["big-endian"] * ("byteorder" in options) + ["predictor"] * ("predictor" in options)
        words.append(f"compression {_NAMES[compression]}")
        yield _tiff_case(", ".join(words), data, bits, photometric)


def _tiff_case(what: str, data: bytes, bits: int, photometric: str) -> Case:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        levels, palette = page.asarray(), page.colormap
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and levels.ndim == 3:
            levels = np.moveaxis(levels, 0, -1)
    if photometric == "miniswhite":
        levels = 2**bits - 1 - levels.astype(np.int64)
    if photometric == "palette" and palette is not None:
        return Case("TIFF", what, data, (palette[:, levels] >> 8).astype(np.uint8).transpose(1, 2, 0))
    if photometric == "separated":
        return Case("TIFF", what, data, from_cmyk(_eight_bits(levels, bits)))
    return Case("TIFF", what, data, to_rgb(levels, bits))


def orientations() -> Iterator[Case]:
    """Yield each EXIF orientation of each format that can have one."""
    second: dict[str, Callable[[bytes], Pixels]] = {
        "JPEG": imagecodecs.jpeg8_decode,
        "PNG": imagecodecs.png_decode,
        "WebP": imagecodecs.webp_decode,
        "TIFF": lambda data: np.asarray(tifffile.imread(io.BytesIO(data))),
        "AVIF": imagecodecs.avif_decode,
    }
    for file_format, decode in second.items():
        for orientation, turn in _TURNS.items():
            exif = Image.Exif()
            exif[0x0112] = orientation
            data = _saved(
                Image.fromarray(scene(3, 8)), file_format.upper(), exif=exif, **_LOSSLESS.get(file_format, {})
            )
            stored = _saved(Image.fromarray(scene(3, 8)), file_format.upper(), **_LOSSLESS.get(file_format, {}))
            yield Case(file_format, f"orientation {orientation}", data, turn(to_rgb(decode(stored), 8)))


_LOSSLESS: Final[dict[str, dict[str, Any]]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WebP": {"lossless": True},
    "AVIF": {"quality": 95, "speed": 9, "subsampling": "4:4:4"},
}


def rows() -> list[Row]:
    """Return how every case ends."""
    return [compare(case) for make in (jpegs, pngs, others, tiffs, orientations) for case in make()]


_INTRODUCTION: Final = """# Pictures that are read

This page is made by `python -m benchmarks.formats > docs/images.md`. Every line is a file that was decoded by Regraft
and by a second decoder (imagecodecs, tifffile), whose pixels were brought to RGB by these rules:

- **The first frame** of an animation counts, and the main picture of an APNG. EXIF orientation is applied.
- **Transparency** is laid on white.
- **CMYK** becomes RGB by the plain rule, without a colour profile; profiles of RGB pictures are not applied either.
- **16 bits a channel** keep their high byte. Where no level of a grey picture needs more than 12 of its 16 bits, as
  many sensors write it, the high byte of those 12 is kept; colours of 12 bits in 16, and grey of 8 bits in 16, are
  refused: nothing says how bright they are.
- **32 bits**, and numbers with a sign, have no defined range and are refused.

**A damaged picture is refused**, never half read, by the server, in training and as a label: `python -m
benchmarks.damage` changes a byte of a file, or cuts its end off, 20,000 times over all formats, and looks whether
anything was answered from pixels that had not been decoded. What a byte changed into another picture, whole and by
the rules of its format, no decoder can tell; PNGs have checksums, by which even that is refused. Spare bytes in front
of the end marker of a JPEG, as cameras leave them, cost nothing. Of fax
compression (CCITT) in TIFF damage is not told: libtiff fills a line that it cannot read, and goes on.

**How large** a picture may be, `REGRAFT_MAX_IMAGE_BYTES` and `REGRAFT_MAX_IMAGE_PIXELS` say: for the server and its
retrains, and for `regraft train`, `refresh`, `export` and the rest. What is over it, or cannot be read any more, is
left out by hash and name.

**How it becomes square** says the rule of the model file, `--resize` of `regraft train` and `refresh`; the server
prepares every picture by the rule that the version was trained with, and so do retrains, exports and int8:

| `--resize` | |
|---|---|
| `crop` | the short side to the size, then the middle, as most networks were pretrained: the ends are not seen |
| `squash` | both sides to the size: all is seen, out of shape |
| `pad` | the long side to the size: all is seen, in shape, between bars of grey (128 of 255, near the mean) |

Where nothing is said a network keeps its own rule. The parts of pictures that fine-tuning and `--views` learn from are
nearly square by `crop`, by the others of the picture's own shape, squashed or padded like the whole.

**Everything else is refused by its name**, with what to do: HEIC, JPEG XL, JPEG 2000, camera raw (also in TIFF, where
other programs show its preview), PSD, DICOM, OpenEXR, PDF, SVG, video, archives, and web pages that were saved in a
picture's stead.
"""


def page() -> str:
    """Return the page of the documentation."""
    every = rows()
    tables = []
    for title, wanted in (("Formats, bit depths and colour models", False), ("Orientations", True)):
        lines = [row for row in every if row.case.what.startswith("orientation") is wanted]
        table = "".join(f"| {row.case.file_format} | {row.case.what} | {row.said} |\n" for row in lines)
        tables.append(f"\n## {title}\n\n| format | file | beside the second decoder |\n|---|---|---|\n{table}")
    return _INTRODUCTION + "".join(tables)


def main() -> None:
    """Print the page."""
    sys.stdout.write(page())


if __name__ == "__main__":
    main()
