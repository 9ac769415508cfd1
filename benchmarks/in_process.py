"""What a machine can do in one process, without a server: the plain loop, and our own decode and run in all lanes.

``benchmarks.serving`` starts it, pinned, and reads the JSON that it prints.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.preprocessing import photo, plain_pillow
from regraft import artifact
from regraft.artifact import IMAGE
from regraft.files import cache_folder
from regraft.image import decode_crop
from regraft.runtime import open_session
from regraft.store import MODEL_FILE, ModelStore
from serving.device import OUTPUTS
from serving.engine import open_engine

SIZE = (500, 375)


def main(store: str, name: str, float_name: str, seconds: str) -> None:
    """Print the figures of a model; the plain loop runs the float one, whatever the precision of the other."""
    models = ModelStore(Path(store))
    path, float_path = (models.folder(*models.find(each)) / MODEL_FILE for each in (name, float_name))
    window_s, data = float(seconds), photo(*SIZE)
    limit = best_of_batches(path, data, window_s)
    sys.stdout.write(json.dumps({"plain": plain(float_path, data, window_s), **limit}))


def plain(path: Path, data: bytes, window_s: float) -> float:
    """Return pictures a second of what people write first: all decoded and resized by Pillow, batch 1, one thread."""
    card = artifact.read(path).card
    session = open_session(path, provider="cpu", threads=1).session
    rate, _ = paced(lambda: session.run(None, {IMAGE: plain_pillow(data, card.image)[None]}), window_s)
    return rate


def best_of_batches(path: Path, data: bytes, window_s: float) -> dict[str, float]:
    """Return pictures a second of all lanes, by the better of batch 1 and the plan's, and the ms of a lone picture."""
    loaded = artifact.read(path)
    plan = open_engine(path, loaded.card, "cpu", plans=cache_folder() / "plans").plan
    session = open_session(path, provider="cpu", threads=plan.threads).session

    def run(batch: int) -> None:
        crops = np.stack([decode_crop(data, loaded.card.image) for _ in range(batch)])
        session.run(list(OUTPUTS), {IMAGE: crops, **loaded.head.feed()})

    best = 0.0
    for batch in sorted({1, plan.max_batch}):
        with ThreadPoolExecutor(plan.lanes) as pool:
            lanes = [pool.submit(paced, lambda batch=batch: run(batch), window_s) for _ in range(plan.lanes)]  # type: ignore[misc]  # mypy cannot infer defaults
            best = max(best, sum(batch * lane.result()[0] for lane in lanes))
    _, alone_ms = paced(lambda: run(1), window_s)
    return {"limit": best, "alone_ms": alone_ms}


def paced(work: Callable[[], object], window_s: float) -> tuple[float, float]:
    """Return how often a second ``work`` is done, and the median milliseconds that it takes."""
    work()
    began_s = time.perf_counter()
    taken: list[float] = []
    while time.perf_counter() - began_s < window_s:
        started_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started_s)
    return len(taken) / (time.perf_counter() - began_s), 1000 * statistics.median(taken)


if __name__ == "__main__":
    main(*sys.argv[1:])
