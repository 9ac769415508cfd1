"""What a machine can do in one process, without a server: the plain loop, and our own decode and run in all lanes.

``benchmarks.serving`` starts it, pinned. It measures whatever each line of its input asks for, ``plain``, ``limit`` or
``alone``, and answers with a line of its own.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.preprocessing import photo, plain_pillow
from benchmarks.server_process import on_cpus
from regraft.files import cache_folder
from regraft.image.decode import decode_crop
from regraft.model import artifact
from regraft.model.artifact import IMAGE
from regraft.model.card import ModelCard
from regraft.model.session import open_session
from regraft.stores.models import MODEL_FILE, ModelStore
from serving.inference.backbone import Backbone, InferenceRequest
from serving.inference.engine import open_engine
from serving.inference.execution_plan import ExecutionPlan
from serving.inference.gpu import OUTPUTS

SIZE: Final = (500, 375)
WINDOW_S: Final = 2.0


@contextmanager
def in_process(store: Path, name: str, float_name: str, cpus: Collection[int]) -> Iterator[Callable[[str], float]]:
    """Start the process that measures, on some CPUs; it ends with the block. Asked for nothing, it does nothing.

    The plain loop runs ``float_name``, whatever the precision of ``name``.

    Yields:
        What measures pictures a second of the ``plain`` loop or of the ``limit``, or the ms of a picture ``alone``.
    """
    command = [sys.executable, "-m", "benchmarks.in_process", str(store), name, float_name]
    with on_cpus(cpus):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(what: str) -> float:
        assert process.stdin
        assert process.stdout
        process.stdin.write(what + "\n")
        process.stdin.flush()
        return float(json.loads(process.stdout.readline()))

    with process:
        measure("limit")  # once for nothing: it has to start
        yield measure


def main(store: str, name: str, float_name: str) -> None:
    """Answer until the input ends."""
    models = ModelStore(Path(store))
    path, float_path = (models.folder(*models.find(each)) / MODEL_FILE for each in (name, float_name))
    data = photo(*SIZE)
    plain_loop, (run, lanes, batch) = plain(float_path, data), our_own(path, data)
    measures = {
        "plain": lambda: rate(plain_loop, 1),
        "limit": lambda: batch * rate(lambda: run(batch), lanes),
        "alone": lambda: median_ms(lambda: run(1)),
    }
    for line in sys.stdin:
        sys.stdout.write(json.dumps(measures[line.strip()]()) + "\n")
        sys.stdout.flush()


def plain(path: Path, data: bytes) -> Callable[[], object]:
    """Return what people write first: all decoded and resized by Pillow, batch 1, one thread."""
    card = artifact.read(path).card
    session = open_session(path, provider="cpu", threads=1).session
    return lambda: session.run(None, {IMAGE: plain_pillow(data, card.image)[None]})


def our_own(path: Path, data: bytes) -> tuple[Callable[[int], object], int, int]:
    """Return what decodes and runs a batch, in how many lanes, and the faster batch of 1 and the plan's."""
    loaded = artifact.read(path)
    plan, session = planned(path, loaded.card)

    def run(batch: int) -> None:
        crops = np.stack([decode_crop(data, loaded.card.image) for _ in range(batch)])
        session.run(list(OUTPUTS), {IMAGE: crops, **loaded.head.feed()})

    def speed(batch: int) -> float:
        return batch * rate(lambda: run(batch), plan.lanes)

    return run, plan.lanes, max({1, plan.max_batch}, key=speed)


def planned(path: Path, card: ModelCard) -> tuple[ExecutionPlan, Any]:
    """Return a server's plan for a model on this CPU, and a session as the plan wants it."""
    plan = open_engine(path, card, "cpu", plans=cache_folder() / "plans").plan
    return plan, open_session(path, provider="cpu", threads=plan.threads).session


def rate(work: Callable[[], object], lanes: int) -> float:
    """Return how often a second ``work`` is done in so many threads at once."""
    with ThreadPoolExecutor(lanes) as pool:
        taken = [pool.submit(paced, work) for _ in range(lanes)]
        return sum(len(lane.result()) / sum(lane.result()) for lane in taken)


def median_ms(work: Callable[[], object]) -> float:
    """Return the median milliseconds that ``work`` takes."""
    return 1000 * statistics.median(paced(work))


def paced(work: Callable[[], object]) -> list[float]:
    """Do ``work`` again and again for a window; return the seconds that each took."""
    work()
    began_s = ended_s = time.perf_counter()
    taken: list[float] = []
    while ended_s - began_s < WINDOW_S:
        work()
        started_s, ended_s = ended_s, time.perf_counter()
        taken.append(ended_s - started_s)
    return taken


async def infer(
    backbone: Backbone, questions: Iterator[InferenceRequest], clients: int, seconds: float
) -> tuple[float, float]:
    """Return pictures a second of busy clients, and CPU milliseconds a picture."""
    answered = 0

    async def client() -> None:
        nonlocal answered
        while time.perf_counter() < began_s + seconds:
            await backbone.infer(next(questions))
            answered += 1

    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return answered / (time.perf_counter() - began_s), 1000 * (time.process_time() - began_cpu_s) / answered


if __name__ == "__main__":
    main(*sys.argv[1:])
