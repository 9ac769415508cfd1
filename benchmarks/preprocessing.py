"""Decode, resize and crop a JPEG: Regraft's one function against other libraries and Pillow's plain loop.

Run it with ``python -m benchmarks.preprocessing``; a library that is not installed is left out, with a line saying so.

Times are of the CPU, not of the clock, at best. "two threads" says by the clock how much more two threads get done
than one: near 2 where the library lets go of the GIL and a second CPU is free. The difference is from a full decode and
Pillow's bicubic of exactly the part that the crop keeps; libraries that cut at whole pixels differ by that shift alone.
"stripes" is the contrast (standard deviation, grey levels) left of stripes too fine for the crop: an antialiased resize
leaves next to none, one that only picks pixels turns them into broad ones.
"""

import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Final, TypeAlias

import cykooz_resizer as cykooz
import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.table import Table

from regraft.image.decode import decode_crop
from regraft.image.spec import Crop, ImageSpec

SPEC: Final = ImageSpec(resize="crop", resize_px=256, crop_px=224, interpolation="bicubic")
SIZES: Final = ((240, 180), (320, 240), (500, 375), (1280, 960), (4000, 3000))
ROUNDS: Final = 15
WINDOW_S: Final = 0.03
"""How long a candidate runs in each round; they take turns, so that all meet the same disturbances."""

Loop: TypeAlias = Callable[[bytes], Crop]
_BOX: Final = (SPEC.crop_px, SPEC.crop_px)


def plain_pillow(data: bytes, spec: ImageSpec = SPEC) -> Crop:
    """Decode all of it, resize all of it, cut the middle out: what most tutorials do."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = spec.resize_px / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - spec.crop_px) // 2, (image.height - spec.crop_px) // 2
    return np.asarray(image.crop((left, top, left + spec.crop_px, top + spec.crop_px)))


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


def _stripes() -> bytes:
    """Return a JPEG of stripes 2.2 px apart, not large enough for the decoder to scale it."""
    wave = 128 + 100 * np.sin(np.arange(1000) * 2 * np.pi / 2.2)
    buffer = io.BytesIO()
    Image.fromarray(np.tile(wave.astype(np.uint8)[None, :, None], (750, 1, 3))).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _middle(width: int, height: int) -> tuple[float, float, float]:
    """Return left, top and side of the part of the picture that the crop keeps."""
    side = min(width, height) * SPEC.crop_px / SPEC.resize_px
    return (width - side) / 2, (height - side) / 2, side


def _pillow(*, scaled: bool = True, reducing_gap: float | None = None) -> Loop:
    def loop(data: bytes) -> Crop:
        image = Image.open(io.BytesIO(data))
        scale = 2 * SPEC.resize_px / min(image.size)
        if scaled:
            image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
        return _cut(image, reducing_gap)

    return loop


def _cut(image: Image.Image, reducing_gap: float | None = None) -> Crop:
    left, top, side = _middle(*image.size)
    return np.asarray(image.resize(_BOX, Image.Resampling.BICUBIC, (left, top, left + side, top + side), reducing_gap))


def _opencv(reducing: str) -> Loop:
    cv2 = import_module("cv2")
    cv2.setNumThreads(1)
    modes = ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))

    def loop(data: bytes) -> Crop:
        short = min(Image.open(io.BytesIO(data)).size)  # OpenCV does not read the size alone
        mode = next((mode for factor, mode in modes if short // factor >= 2 * SPEC.resize_px), cv2.IMREAD_COLOR)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
        left, top, side = (round(value) for value in _middle(pixels.shape[1], pixels.shape[0]))
        kept = pixels[top : top + side, left : left + side]
        interpolation = getattr(cv2, reducing) if len(kept) > SPEC.crop_px else cv2.INTER_CUBIC
        crop: Crop = cv2.cvtColor(cv2.resize(kept, _BOX, interpolation=interpolation), cv2.COLOR_BGR2RGB)
        return crop

    return loop


def _vips() -> Loop:
    os.environ["VIPS_CONCURRENCY"] = "1"
    vips = import_module("pyvips")
    vips.cache_set_max(0)

    def loop(data: bytes) -> Crop:
        edge = (SPEC.resize_px - SPEC.crop_px) // 2
        small = vips.Image.thumbnail_buffer(data, SPEC.resize_px, height=SPEC.resize_px, crop="centre")
        crop: Crop = small.crop(edge, edge, *_BOX).numpy()
        return crop

    return loop


def _then_cykooz(decode: Callable[[bytes], npt.NDArray[np.uint8]]) -> Loop:
    """Let another library decode, and resize with what Regraft resizes with, but past Pillow."""

    def loop(data: bytes) -> Crop:
        pixels = decode(data)
        height, width, _ = pixels.shape
        left, top, side = _middle(width, height)
        if side < SPEC.crop_px:
            return _cut(Image.fromarray(pixels))  # `regraft.image.resize` says why cykooz must not enlarge in one pass
        options = cykooz.ResizeOptions(
            resize_alg=cykooz.ResizeAlg.convolution(cykooz.FilterType.catmull_rom),
            crop_box=cykooz.CropBox(left, top, side, side),
        )
        small = cykooz.ImageData(*_BOX, cykooz.PixelType.U8x3)
        cykooz.Resizer().resize(
            cykooz.ImageData(width, height, cykooz.PixelType.U8x3, pixels.tobytes()), small, options
        )
        return np.frombuffer(small.get_buffer(), np.uint8).reshape(*_BOX, 3)

    return loop


def _simplejpeg() -> Loop:
    decode, least = import_module("simplejpeg").decode_jpeg, 2 * SPEC.resize_px
    return _then_cykooz(lambda data: decode(data, "RGB", min_height=least, min_width=least, min_factor=2))


CANDIDATES: Final[tuple[tuple[str, str, Callable[[], Loop]], ...]] = (
    ("Pillow, plain", "pillow", lambda: plain_pillow),
    ("Pillow, draft + box", "pillow", _pillow),
    ("Pillow, draft + box + reducing_gap", "pillow", lambda: _pillow(reducing_gap=2.0)),
    ("Regraft", "regraft", lambda: lambda data: decode_crop(data, SPEC)),
    ("OpenCV, INTER_AREA", "opencv-python-headless", lambda: _opencv("INTER_AREA")),
    ("OpenCV, INTER_CUBIC", "opencv-python-headless", lambda: _opencv("INTER_CUBIC")),
    ("libvips thumbnail", "pyvips[binary]", _vips),
    ("simplejpeg + cykooz-resizer", "simplejpeg", _simplejpeg),
    ("imagecodecs + cykooz-resizer", "imagecodecs", lambda: _then_cykooz(import_module("imagecodecs").jpeg8_decode)),
)
"""Name, pip name, and what imports the library and makes its loop."""


def _best_ms(loops: dict[str, Loop], data: bytes) -> dict[str, float]:
    """Return each loop's best mean over a window."""
    best = dict.fromkeys(loops, float("inf"))
    for _ in range(ROUNDS):
        for name, loop in loops.items():
            loop(data)
            began, runs = time.process_time(), 0
            while (spent := time.process_time() - began) < WINDOW_S:
                loop(data)
                runs += 1
            best[name] = min(best[name], 1000 * spent / runs)
    return best


def _two_threads(loop: Loop, data: bytes, runs: int = 60) -> float:
    """Return how many times as much two threads get done as one, at best."""

    def several(_: int) -> float:
        began = time.perf_counter()
        for _run in range(runs):
            loop(data)
        return time.perf_counter() - began

    with ThreadPoolExecutor(2) as threads:
        alone = min(several(0) for _ in range(5))
        return 2 * alone / min(max(threads.map(several, range(2))) for _ in range(10))


def main() -> None:
    """Print the tables."""
    console = Console(width=120)
    loops: dict[str, Loop] = {}
    for name, package, make in CANDIDATES:
        try:
            loops[f"{name} ({version(package.partition('[')[0])})"] = make()
        except (ImportError, OSError, PackageNotFoundError) as error:
            console.print(f"left out: {name}: pip install {package} ({error})", markup=False)

    photos = [photo(*size) for size in SIZES]
    times = [_best_ms(loops, data) for data in photos]
    sizes = [f"{width} x {height}" for width, height in SIZES]
    speed = Table("ms (times as fast as plain)", *sizes)
    for name in loops:
        speed.add_row(name, *(f"{best[name]:.2f} ({next(iter(best.values())) / best[name]:.1f})" for best in times))
    console.print(speed)

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    exact = _pillow(scaled=False)
    likeness = Table("grey levels off: mean / max", *sizes, "stripes", "two threads")
    for name, loop in loops.items():
        off = [np.abs(exact(data).astype(int) - loop(data)) for data in photos]
        threads = f"{_two_threads(loop, photos[1]):.2f}" if cpus > 1 else "one CPU"
        cells = [f"{levels.mean():.2f} / {levels.max()}" for levels in off]
        likeness.add_row(name, *cells, f"{loop(_stripes()).std():.1f}", threads)
    console.print(likeness)


if __name__ == "__main__":
    main()
