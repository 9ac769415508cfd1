"""What drift looks like on photographs, and what a shadow costs.

``python -m benchmarks.drift DATA OTHER``: a model of the photographs in DATA/train; a real server is sent those in
DATA/val, which neither the head nor the card's reference has seen: as they are, darkened, blurred, without colour,
turned; and then the photographs in OTHER, which are of something else. On a quiet machine, for the last table.
"""

import io
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from PIL import Image, ImageEnhance, ImageFilter
from rich.console import Console
from rich.table import Table

from benchmarks.server_process import ServerProcess, on_cpus
from regraft.bench.generator import run_bench
from regraft.bench.settings import BenchSettings
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.message_values import word_of
from regraft.datasets.labelled_files import find_in_folder
from regraft.machine import processor
from regraft.v1 import models_pb2
from training.settings import TrainSettings
from training.train import train

NAME: Final = "photographs"
WINDOW: Final = 400
ROUNDS: Final = 5
ROUND_S: Final = 5.0
PATIENCE_S: Final = 60.0

Change: TypeAlias = Callable[[Image.Image], Image.Image]

CHANGES: Final[dict[str, Change]] = {
    "as they are": lambda image: image,
    "half as bright": lambda image: ImageEnhance.Brightness(image).enhance(0.5),
    "a quarter as bright": lambda image: ImageEnhance.Brightness(image).enhance(0.25),
    "blurred by 2 px": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "blurred by 4 px": lambda image: image.filter(ImageFilter.GaussianBlur(4)),
    "without colour": lambda image: image.convert("L").convert("RGB"),
    "turned by 90 degrees": lambda image: image.rotate(90),
}


def main() -> None:
    """Print both tables."""
    data, other = (Path(argument) for argument in sys.argv[1:])
    os.environ["REGRAFT_DRIFT_WINDOW"] = str(WINDOW)
    cpus = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        train(TrainSettings(data / "train", store=store, name=NAME))
        train(TrainSettings(data / "train", store=store, name=NAME, seed=1))  # a champion and one to go beside it
        pictures, strangers = shuffled(data / "val"), shuffled(other)
        with ServerProcess(store, cpus, "--bake", "0") as server:
            Console().print(drift(server, data, pictures, strangers))
        with ServerProcess(store, {cpus[0]}, "--bake", "0") as server, on_cpus({cpus[-1]}):
            Console().print(cost(server, tuple(path.read_bytes() for path, _ in pictures[:100])))


def shuffled(folder: Path) -> list[tuple[Path, str]]:
    """Return (file, label) of as many pictures as the window holds, always the same ones."""
    files = find_in_folder(folder)
    return random.Random(0).sample(files, min(WINDOW, len(files)))  # noqa: S311 - a seeded choice of test data


def drift(
    server: ServerProcess, data: Path, pictures: list[tuple[Path, str]], strangers: list[tuple[Path, str]]
) -> Table:
    """Send one kind of pictures after the other, and tell what the server makes of each."""
    columns = ("KS distance", "KS confidence", "KS label", "unknown", "accuracy", "drift")
    table = Table("pictures", *columns, title=f"{data.name}, windows of {WINDOW}")
    with Client(Connection(server.target)) as client:
        for kind, change in CHANGES.items():
            table.add_row(kind, *_row(client, [(changed(path, change), label) for path, label in pictures]))
        table.add_row("of something else", *_row(client, [(path.read_bytes(), "") for path, _ in strangers]))
    return table


def changed(path: Path, change: Change) -> bytes:
    """Return a picture as a camera with a fault would have sent it: JPEG at quality 92."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        change(image.convert("RGB")).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _row(client: Client, pictures: list[tuple[bytes, str]]) -> list[str]:
    answers = client.classify_stream((label, data) for data, label in pictures)
    right = [answer.response.predictions[0].label == answer.id for answer in answers]
    found = _settled(client, len(pictures))
    state = word_of(models_pb2.Drift.State, found.state).lower()
    shown = [f"{shift.ks:.2f}{'!' if shift.drifted else ''}" for shift in found.shifts]
    shown[-1] += f" {found.shifts[-1].of}"
    accuracy = f"{statistics.mean(right):.3f}" if any(label for _, label in pictures) else ""
    return [*shown, f"{found.unknown_share:.1%}", accuracy, state]


def _settled(client: Client, images: int) -> models_pb2.Drift:
    """Return what is told of the window once the server has looked at the last of its answers."""
    give_up_s = time.monotonic() + PATIENCE_S
    before = models_pb2.Drift()
    while time.monotonic() < give_up_s:
        time.sleep(1.0)  # it looks twice a second
        now = client.get_model().drift
        if now.images == images and now == before:
            return now
        before = now
    raise SystemExit("the server did not look at its answers")


def cost(server: ServerProcess, pictures: tuple[bytes, ...]) -> Table:
    """Load a server of one CPU, in turns with and without a shadow."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    p99_ms: dict[bool, list[float]] = {False: [], True: []}
    with Client(Connection(server.target)) as client:
        for _ in range(ROUNDS):
            for with_shadow in (False, True):
                if with_shadow:
                    client.shadow(1)
                elif rates[True]:
                    client.shadow(0)
                load = BenchSettings(pictures, Connection(server.target), duration_s=ROUND_S)
                result = run_bench(load)
                rates[with_shadow].append(result.goodput_per_s)
                p99_ms[with_shadow].append(result.latency_ms.p99 if result.latency_ms else 0.0)
        shadow = client.get_model().shadow
    ratio = statistics.median(b / a for a, b in zip(rates[False], rates[True], strict=True))
    title = f"server on one CPU ({processor()}), 8 clients, median of {ROUNDS} rounds; ratio within each {ratio:.3f}"
    table = Table("", "pictures/s", "p99 ms", title=title, caption=f"the shadow judged {shadow.images} in the last")
    for with_shadow, name in ((False, "no shadow"), (True, "shadow")):
        rate, p99 = (f"{statistics.median(values[with_shadow]):.1f}" for values in (rates, p99_ms))
        table.add_row(name, rate, p99)
    return table


if __name__ == "__main__":
    main()
