"""Throughput and scrapes of fifty heads of a thousand classes, against one.

``python -m benchmarks.heads STORE NAME``, two minutes. First are measured pictures a second on one backbone, that of
``NAME``: all for one head, or each for one of fifty by lot. Windows of the two take turns, and the ratio is the median
of those of neighbours, since a machine that others share changes its speed within a minute. Once with the plan that was
measured here, once with batches of four.

Then what a scrape of ``/metrics`` takes where fifty models have given each of their thousand labels, and how late an
event loop of the same process is meanwhile.
"""

import argparse
import asyncio
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.in_process import SIZE, WINDOW_S, infer
from benchmarks.preprocessing import photo
from regraft.files import cache_folder
from regraft.machine import processor
from regraft.model import artifact
from regraft.model.artifact import Head
from regraft.model.card import ModelCard
from regraft.stores.models import MODEL_FILE, ModelStore
from serving.inference.backbone import Backbone, InferenceRequest
from serving.inference.engine import Engine, open_engine
from serving.telemetry.metrics import Metrics
from serving.telemetry.statistics import STAGES

HEADS: Final = 50
CLASSES: Final = 1000
ROUNDS: Final = 8
CLIENTS: Final = 16
SCRAPES: Final = 5
TICK_S: Final = 0.001


def main() -> None:
    """Do as the module says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    models = ModelStore(options.store)
    path = models.folder(*models.find(options.name)) / MODEL_FILE
    console = Console()
    console.print(speed(path))
    console.print(scrapes())


def speed(path: Path) -> Table:
    """Measure one head against fifty."""
    card = artifact.read(path).card
    heads = [random_head(card.embedding_size, seed) for seed in range(HEADS)]
    table = Table("batches of", "heads", "pictures/s", "CPU ms a picture", "of one head", title=processor())
    for batch in (None, 4):
        engine = open_engine(path, card, "cpu", plans=cache_folder() / "plans")
        if batch:
            engine.plan = replace(engine.plan, max_batch=batch, turn=1)
        found: dict[int, list[tuple[float, float]]] = {1: [], HEADS: []}
        for _ in range(ROUNDS):
            for count, windows in found.items():
                windows.append(asyncio.run(window(engine, card, heads[:count])))
        ratio = statistics.median(many / one for (one, _), (many, _) in zip(found[1], found[HEADS], strict=True))
        for count, windows in found.items():
            rate, cpu_ms = (statistics.median(column) for column in zip(*windows, strict=True))
            share = f"{ratio:.3f}" if count == HEADS else ""
            table.add_row(str(engine.plan.max_batch), str(count), f"{rate:.1f}", f"{cpu_ms:.2f}", share)
    return table


def random_head(size: int, seed: int) -> Head:
    """Return a head of a thousand classes; what it answers is of no account."""
    generator = np.random.default_rng(seed)
    shapes = (CLASSES, size), (CLASSES,), (CLASSES, size), (32, size)
    return Head(*(np.asarray(generator.normal(size=shape) / size, np.float32) for shape in shapes))


async def window(engine: Engine, card: ModelCard, heads: Sequence[Head]) -> tuple[float, float]:
    """Measure pictures a second of one window, and CPU milliseconds of each."""
    data, lot = photo(*SIZE), np.random.default_rng(0)
    questions = (InferenceRequest(data, card.image, heads[int(lot.integers(len(heads)))]) for _ in itertools.count())
    with closing(Backbone(engine, max_queue=CLIENTS)) as backbone:
        return await infer(backbone, questions, CLIENTS, WINDOW_S)


def scrapes() -> Table:
    """Measure scrapes of fifty models of a thousand labels."""
    metrics = Metrics()
    for model in range(HEADS):
        of = metrics.of(f"model-{model}")
        for label in range(CLASSES):
            of.answered(dict.fromkeys(STAGES, 0.01), f"label {label}", 0.9, is_novel=False)
    application = metrics.application()
    taken_s: list[float] = []
    texts: list[bytes] = []

    def scrape() -> None:
        for _ in range(SCRAPES):
            began_s = time.thread_time()
            environment = {"PATH_INFO": "/metrics", "REQUEST_METHOD": "GET"}
            texts.append(b"".join(application(environment, cast("Any", lambda *_: None))))
            taken_s.append(time.thread_time() - began_s)

    idle_ms = asyncio.run(lateness(lambda: time.sleep(SCRAPES * 0.1)))
    busy_ms = asyncio.run(lateness(scrape))
    table = Table(
        "models", "labels", "series", "kB", "CPU ms a scrape", "loop late, ms, p99", "most", "idle: p99", "most"
    )
    lines = [line for line in texts[-1].splitlines() if not line.startswith(b"#")]
    figures = [*percentiles(busy_ms), *percentiles(idle_ms)]
    table.add_row(
        str(HEADS),
        str(CLASSES),
        str(len(lines)),
        f"{len(texts[-1]) / 1000:.0f}",
        f"{1000 * statistics.median(taken_s):.0f}",
        *(f"{figure:.1f}" for figure in figures),
    )
    return table


async def lateness(work: Callable[[], object]) -> list[float]:
    """Return the milliseconds that an event loop's ticks were late beside ``work``."""
    late_ms: list[float] = []
    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        due_s = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        late_ms.append(1000 * (time.perf_counter() - due_s))
    return late_ms


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the 99th percentile and the largest."""
    return float(np.quantile(values, 0.99)), max(values)


if __name__ == "__main__":
    main()
