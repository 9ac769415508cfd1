"""Memory of decoding against the estimate of `regraft.image.decoding_cost`, by format and mode.

``python -m benchmarks.decoding_cost``, on Linux. Each picture is decoded in a process of its own; exit 1 where one took
more than was said.
"""

import io
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.memory import MB, forget_peak, peak_bytes, resident_bytes
from regraft.image.decode import decode_crop
from regraft.image.decoding_cost import quick_cost, read_cost
from regraft.image.limits import ImageLimits
from regraft.image.resize import smallest_useful_size
from regraft.image.spec import ImageSpec

SIDE: Final = 4_000
LIMITS: Final = ImageLimits(max_bytes=2**30, max_pixels=10**9)
SPARE_MB: Final = 4.0
"""Of libraries that are loaded with the first picture of a format."""

_KINDS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    ("JPEG", "CMYK", {"progressive": True, "subsampling": 0}),
    ("JPEG", "L", {}),
    *(("PNG", mode, {"compress_level": 1}) for mode in ("1", "L", "P", "RGB", "LA", "RGBA", "I;16")),
    ("PNG", "P", {"compress_level": 1, "transparency": 0}),
    ("WEBP", "RGB", {"method": 0}),
    ("WEBP", "RGBA", {"method": 0}),
    ("WEBP", "RGBA", {"method": 0, "lossless": True}),
    ("BMP", "RGB", {}),
    ("BMP", "L", {}),
    ("GIF", "P", {}),
    ("GIF", "P", {"transparency": 3}),
    *(("TIFF", "RGB", {"compression": name}) for name in ("raw", "tiff_lzw", "jpeg", "zstd")),
    ("TIFF", "RGBA", {"compression": "tiff_deflate"}),
    ("TIFF", "CMYK", {}),
    ("TIFF", "I;16", {}),
    ("AVIF", "RGB", {"speed": 10}),
    ("AVIF", "RGBA", {"speed": 10}),
)


def picture(mode: str) -> Image.Image:
    """Return a picture with shapes, in a mode."""
    coarse = np.random.default_rng(0).integers(0, 256, (SIDE // 8, SIDE // 8, 3), np.uint8)
    whole = Image.fromarray(coarse).resize((SIDE, SIDE))
    if mode == "I;16":
        return Image.fromarray(np.asarray(whole.convert("L")).astype(np.uint16) * 257)
    if mode == "RGBA":
        whole.putalpha(whole.convert("L"))
    return whole.convert("LA") if mode == "LA" else whole if mode == "RGBA" else whole.convert(mode)


def encoded(form: str, mode: str, options: dict[str, Any], orientation: int) -> bytes:
    """Return the file; an orientation lets the decoder turn it upright."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x112] = orientation
    turned = {"exif": exif} if orientation > 1 and form in ("JPEG", "PNG", "WEBP", "AVIF") else {}
    picture(mode).save(buffer, form, **options, **turned)
    return buffer.getvalue()


def decode_here(file: Path) -> None:
    """Decode a file, and print what that took."""
    data, small = file.read_bytes(), io.BytesIO()
    Image.new("RGB", (64, 64)).save(small, "JPEG")
    decode_crop(small.getvalue(), ImageSpec())  # what is loaded for the first picture is not this one's
    forget_peak()
    before = resident_bytes()
    decode_crop(data, ImageSpec(), LIMITS)
    taken_mb = (peak_bytes() - before + 2 * len(data)) / MB  # the message's and the request's, which are not here
    sys.stdout.write(json.dumps(taken_mb))


def main() -> None:
    """Print the table."""
    if sys.argv[1:]:
        decode_here(Path(sys.argv[1]))
        return
    least = partial(smallest_useful_size, spec=ImageSpec())
    table = Table("format", "mode", "", "MB taken", "MB said", "bytes a pixel", title=f"{SIDE} x {SIDE}")
    is_more = False
    with tempfile.TemporaryDirectory() as folder:
        for form, mode, options in _KINDS:
            for orientation in (1, 6) if form in ("JPEG", "PNG", "WEBP", "AVIF") else (1,):
                data = encoded(form, mode, options, orientation)
                file = Path(folder) / "picture"
                file.write_bytes(data)
                child = [sys.executable, "-m", "benchmarks.decoding_cost", str(file)]
                taken_mb = float(subprocess.run(child, capture_output=True, check=True).stdout)
                said_mb = (quick_cost(data, least) or read_cost(data, LIMITS)).memory_bytes / MB
                is_more |= taken_mb > said_mb + SPARE_MB
                told = ", ".join(
                    [*(f"{key}={value}" for key, value in options.items()), *["turned"][: orientation > 1]]
                )
                each = (taken_mb * MB - 3 * len(data)) / SIDE**2
                table.add_row(form, mode, told, f"{taken_mb:.0f}", f"{said_mb:.0f}", f"{each:.1f}")
    Console().print(table)
    sys.exit(int(is_more))


if __name__ == "__main__":
    main()
