"""Seconds, CPU seconds and peak memory of each stage of a large training run.

python -m benchmarks.scale [PICTURES] [--image-px N]

The pictures are drawn: PNGs of 32 x 32 px in ten classes, one in fifty shot again with other noise. A fresh cache, so
that every picture is embedded. Linux only: the peak is the kernel's, reset when a stage begins.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.memory import forget_peak, peak_bytes, resident_bytes
from regraft.image.encode import encode_png
from regraft.stores.models import FEATURES_FILE
from training.settings import TrainSettings
from training.strategies.context import SilentListener, Stopwatch
from training.train import TrainResult, train

CLASSES = 10
SIDE_PX = 32
AGAIN = 50


@dataclass
class Meter(Stopwatch):
    """A stopwatch that also measures CPU seconds and peak memory (MB) of stages."""

    base_mb: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block."""
        self.base_mb = self.base_mb or resident_bytes() / 1e6
        forget_peak()
        began_s = time.process_time()
        with super().stage(name):
            yield
        self.cpu_s[name] = self.cpu_s.get(name, 0.0) + time.process_time() - began_s
        self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), peak_bytes() / 1e6)


def draw(folder: Path, count: int) -> None:
    """Write so many pictures: each class has a pattern, each picture one of its own, and noise."""
    random = np.random.default_rng(0)
    patterns = _patterns(random, CLASSES)
    for number in range(count):
        label = number % CLASSES
        scene = number - CLASSES if number % AGAIN == AGAIN - 1 else number
        own = _patterns(np.random.default_rng([1, scene]), 1)[0]
        noise = random.normal(0, 4, (SIDE_PX, SIDE_PX, 3))
        target = folder / f"class {label}"
        target.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(128 + 60 * patterns[label] + 60 * own + noise, 0, 255).astype(np.uint8)
        (target / f"{number}.png").write_bytes(encode_png(pixels))


def _patterns(random: np.random.Generator, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return blotches [count, SIDE_PX, SIDE_PX, 3] of standard deviation 1."""
    coarse = random.normal(size=(count, SIDE_PX // 8, SIDE_PX // 8, 3))
    return np.asarray(coarse.repeat(8, axis=1).repeat(8, axis=2))


def main() -> None:
    """Draw, train, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", type=int, nargs="?", default=50_000)
    parser.add_argument("--image-px", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw(folder / "blotches", arguments.pictures)
        settings = TrainSettings(data=folder / "blotches", store=folder / "models", image_px=arguments.image_px)
        draw(folder / "few", 60)
        few = replace(settings, data=folder / "few")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:  # torch, which exports, stays there
            other.submit(train, few, cache=folder).result()
        train(few, cache=folder)  # loads everything, so that the base is that of a run without pictures
        meter = Meter()
        result = train(settings, SilentListener(), cache=folder, watch=meter)
        _report(meter, result, arguments.pictures)


def _report(meter: Meter, result: TrainResult, pictures: int) -> None:
    features = result.path.with_name(FEATURES_FILE).stat().st_size / 1e6
    embeddings = pictures * result.card.embedding_size * 4 / 1e6
    rows = []
    for name, seconds in meter.seconds.items():
        peak = meter.peak_mb[name]
        beyond = (peak - meter.base_mb) / embeddings
        rows.append(f"| {name} | {seconds:.1f} | {meter.cpu_s[name]:.1f} | {peak:.0f} | {beyond:.2f} |")
    lines = (
        f"{pictures} pictures, {result.card.backbone.name} at {result.card.image.crop_px} px, "
        f"accuracy {result.to_dict()['accuracy']}, near-duplicates {result.findings.duplicates_found}",
        f"base {meter.base_mb:.0f} MB, embeddings {embeddings:.0f} MB, {FEATURES_FILE} {features:.0f} MB",
        "",
        "| stage | seconds | CPU seconds | peak, MB | beyond the base, in embeddings |",
        "|---|---|---|---|---|",
        *rows,
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
