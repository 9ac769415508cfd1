"""Decode, resize and crop: Regraft's one function against Pillow's plain full decode and resize.

Run it with ``python -m benchmarks.preprocessing``.
"""

import io
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from regraft.image import Crop, ImageSpec, decode_crop

SPEC = ImageSpec(resize="crop", resize_px=256, crop_px=224, interpolation="bicubic")
SIZES = ((320, 240), (500, 375), (1280, 960), (4000, 3000))
RUNS = 30


def plain_pillow(data: bytes) -> Crop:
    """Decode all of it, resize all of it, cut the middle out: what most tutorials do."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = SPEC.resize_px / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - SPEC.crop_px) // 2, (image.height - SPEC.crop_px) // 2
    return np.asarray(image.crop((left, top, left + SPEC.crop_px, top + SPEC.crop_px)))


def photo(width: int, height: int) -> bytes:
    """Return a JPEG with smooth shapes and some grain, so that its size is that of a photograph."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (max(2, height // 40), max(2, width // 40), 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grain = generator.normal(0, 6, (height, width, 3))
    pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def median_ms(run: Callable[[], Crop]) -> float:
    """Return the median of `RUNS` runs."""
    run()
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def main() -> None:
    """Print the table."""
    table = Table("JPEG", "plain Pillow ms", "Regraft ms", "ratio", "mean difference (grey levels)")
    for width, height in SIZES:
        data = photo(width, height)
        plain = median_ms(lambda data=data: plain_pillow(data))  # type: ignore[misc]  # mypy cannot infer defaults
        ours = median_ms(lambda data=data: decode_crop(data, SPEC))  # type: ignore[misc]  # likewise
        difference = np.abs(plain_pillow(data).astype(int) - decode_crop(data, SPEC)).mean()
        table.add_row(f"{width} x {height}", f"{plain:.2f}", f"{ours:.2f}", f"{plain / ours:.1f}", f"{difference:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
