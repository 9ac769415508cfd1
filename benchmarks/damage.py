"""Damaged pictures by the ten thousand: is each one refused, or decoded to the last pixel?

``python -m benchmarks.damage``. 24 pictures in every format and compression; of each file one byte is changed, or the
end is cut off. Whether a picture that was answered had been decoded is not asked of our own decoder. Pillow decodes it
onto two canvases of different colours: pixels that differ were never written. Every scan of a JPEG is continued in two
ways: pixels that differ were made up of data that are not there.
"""

import argparse
import io
import os
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from regraft.errors import InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.spec import ImageSpec

SPEC: Final = ImageSpec("squash", 64, 64, "bilinear")
PICTURES: Final = 24
SIDE_PX: Final = (112, 84)
_CANVASES: Final = (0, 255)


def _encoder(file_format: str, mode: str = "RGB", **options: object) -> Callable[[Image.Image], bytes]:
    def encode(picture: Image.Image) -> bytes:
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, file_format, **options)
        return buffer.getvalue()

    return encode


def _restarts(picture: Image.Image) -> bytes:
    return _encoder("JPEG", quality=85, restart_marker_rows=1)(picture)


KINDS: Final[dict[str, Callable[[Image.Image], bytes]]] = {
    "JPEG": _encoder("JPEG", quality=85),
    "JPEG, progressive": _encoder("JPEG", quality=85, progressive=True),
    "JPEG, restart markers": _restarts,
    "JPEG, grey": _encoder("JPEG", "L", quality=85),
    "JPEG, CMYK": _encoder("JPEG", "CMYK", quality=85),
    "PNG": _encoder("PNG"),
    "PNG, palette": _encoder("PNG", "P"),
    "PNG, grey": _encoder("PNG", "L"),
    "WebP": _encoder("WEBP", quality=85),
    "WebP, lossless": _encoder("WEBP", lossless=True),
    "WebP, transparent": _encoder("WEBP", "RGBA", quality=85),
    "BMP": _encoder("BMP"),
    "BMP, palette": _encoder("BMP", "P"),
    "GIF": _encoder("GIF", "P", interlace=0),
    "GIF, interlaced": _encoder("GIF", "P", interlace=1),
    "TIFF": _encoder("TIFF"),
    "TIFF, LZW": _encoder("TIFF", compression="tiff_lzw"),
    "TIFF, deflate": _encoder("TIFF", compression="tiff_adobe_deflate"),
    "TIFF, PackBits": _encoder("TIFF", compression="packbits"),
    "TIFF, zstd": _encoder("TIFF", compression="zstd"),
    "TIFF, LZMA": _encoder("TIFF", compression="lzma"),
    "TIFF, JPEG": _encoder("TIFF", compression="jpeg", quality=85),
    "TIFF, fax group 3": _encoder("TIFF", "1", compression="group3"),
    "TIFF, fax group 4": _encoder("TIFF", "1", compression="group4"),
    "AVIF": _encoder("AVIF", quality=80, speed=9),
}


def pictures(count: int = PICTURES) -> list[Image.Image]:
    """Return photographs where REGRAFT_TEST_DATA has some, else generated pictures, all of them small."""
    folder = Path(os.environ.get("REGRAFT_TEST_DATA", "../shared/data"))
    files = sorted((folder / "flower_photos").rglob("*.jpg"))
    if not files:
        return [generated(number) for number in range(count)]
    return [Image.open(file).convert("RGB").resize(SIDE_PX) for file in files[:: max(1, len(files) // count)][:count]]


def generated(number: int) -> Image.Image:
    """Return a small picture of waves and noise, always the same of a number."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[0 : SIDE_PX[1], 0 : SIDE_PX[0]]
    waves = [128 + 90 * np.sin(x / random.uniform(4, 20) + y / random.uniform(4, 20)) for _ in range(3)]
    return Image.fromarray((np.stack(waves, -1) + random.normal(0, 12, (*x.shape, 3))).clip(0, 255).astype(np.uint8))


def damaged(data: bytes, random: np.random.Generator) -> tuple[str, bytes]:
    """Change a byte, or cut the end off, and say which."""
    where = int(random.integers(0, len(data)))
    if random.random() < 0.25:
        return f"cut at {where}", data[:where]
    changed = bytearray(data)
    changed[where] ^= int(random.integers(1, 256))
    return f"byte {where}", bytes(changed)


def is_undecoded(data: bytes) -> bool:
    """Tell whether a decoder that does not complain leaves pixels out, or makes them up."""
    if data.startswith(b"\xff\xd8") and _makes_up_pixels(data):
        return True
    first, second = (_on_canvas(data, level) for level in _CANVASES)
    return first is not None and second is not None and (first.shape != second.shape or bool((first != second).any()))


def _on_canvas(data: bytes, level: int) -> npt.NDArray[np.uint8] | None:
    """Return what Pillow writes onto a canvas of one level, errors passed over; None where it opens nothing."""
    try:
        image = Image.open(io.BytesIO(data))
        image.im = Image.new(
            image.mode, image.size, (level,) * len(image.getbands()) if image.mode != "1" else level
        ).im
        stored = image.im.copy()
    except Exception:  # noqa: BLE001 - whatever Pillow makes of damages
        return None
    try:
        image.load()
    except Exception:  # noqa: BLE001 - as above
        return np.asarray(Image.new("L", (1, 1), level)) if stored else None
    return np.asarray(image)


def _makes_up_pixels(data: bytes) -> bool:
    for end in _scan_ends(data):
        first, second = (_jpeg_pixels(data[:end] + tail + data[end:]) for tail in _TAILS)
        if not np.array_equal(first, second):
            return True
    return False


def _jpeg_pixels(data: bytes) -> npt.NDArray[np.uint8]:
    try:
        return np.asarray(imagecodecs.jpeg8_decode(data))
    except Exception:  # noqa: BLE001 - what a second decoder refuses has no pixels
        return np.zeros(0, np.uint8)


_TAILS: Final = tuple(np.random.default_rng(seed).integers(0, 255, 4096, np.uint8).tobytes() for seed in (1, 2))


def _scan_ends(data: bytes) -> Iterator[int]:
    """Yield where the data of each scan end: at a marker that is none of a restart."""
    start = 2
    while start + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, start)
        if marker >> 8 != 0xFF or marker == 0xFFD9:
            return
        start += 2 + length
        if marker != 0xFFDA:
            continue
        while start + 1 < len(data) and not (
            data[start] == 0xFF and not (data[start + 1] == 0 or 0xD0 <= data[start + 1] <= 0xD7)
        ):
            start += 1
        yield start


@dataclass
class Outcome:
    """How the damages of one kind of file ended; ``wrong`` names those that were answered and should not have been."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def play(kind: str, files: list[bytes], count: int, random: np.random.Generator) -> Outcome:
    """Damage files of one kind, so many times in all, and look at what `decode_crop` makes of each."""
    outcome = Outcome()
    sound = [decode_crop(data, SPEC) for data in files]
    for number in range(count):
        what, data = damaged(files[number % len(files)], random)
        try:
            crop = decode_crop(data, SPEC)
        except InvalidImageError:
            outcome.counts["refused"] += 1
            continue
        if np.array_equal(crop, sound[number % len(files)]):
            outcome.counts["the same crop"] += 1
        elif is_undecoded(data):
            outcome.counts["undecoded"] += 1
            outcome.wrong.append(f"{kind}, picture {number % len(files)}, {what}")
        else:
            outcome.counts["other pixels, all decoded"] += 1
    return outcome


def main() -> None:
    """Print what became of all damages; exit with 1 if a picture was answered that had not been decoded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.damage", description=__doc__)
    parser.add_argument("--damages", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random, wrong = np.random.default_rng(options.seed), []
    columns = ("refused", "the same crop", "other pixels, all decoded", "undecoded")
    table = Table("kind", "damages", *columns, title=f"{options.damages} damages, seed {options.seed}")
    each = -(-options.damages // len(KINDS))
    for kind, encode in track(KINDS.items(), "kinds", console=Console(stderr=True)):
        outcome = play(kind, [encode(picture) for picture in pictures()], each, random)
        table.add_row(kind, str(each), *(str(outcome.counts[column]) for column in columns))
        wrong += outcome.wrong
    Console().print(table, *wrong, sep="\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
