"""Latency of classifications beside readers of a large model card.

``python -m benchmarks.large_card [CLASSES]``: the milliseconds of a classification, alone, and while three clients read
the model's card without a pause. Windows of both take turns; printed are the medians of their figures. A tiny network,
so that the event loop is what is measured.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from benchmarks.server_process import ServerProcess
from regraft.client.client import Client
from regraft.model.artifact import Head, graft
from regraft.model.card import ClassMetrics, Metrics
from regraft.stores.models import MODEL_FILE, ModelStore
from tests.tiny import EMBEDDING_SIZE, picture, tiny_backbone, tiny_card

ROUNDS: Final = 7
WINDOW_S: Final = 2.0
READERS: Final = 3


def publish(store: ModelStore, classes: int) -> None:
    """Publish a model of many classes, with a confusion matrix."""
    random = np.random.default_rng(0)
    labels = tuple(f"a class with the number {number:05}" for number in range(classes))
    prototypes = random.random((classes, EMBEDDING_SIZE), np.float32)
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    head = Head(prototypes, np.zeros(classes, np.float32), prototypes, np.zeros((1, EMBEDDING_SIZE), np.float32))
    counts = random.poisson(0.01, (classes, classes)) + 7 * np.eye(classes, dtype=int)
    of_a_class = {"precision": 0.9876, "recall": 0.9876, "f1": 0.9876, "support": 7}
    metrics = Metrics(
        images=int(counts.sum()),
        accuracy=0.9876,
        accuracy_interval=(0.98, 0.99),
        macro_f1=0.9876,
        log_loss=0.1,
        per_class=tuple(ClassMetrics(label=label, **of_a_class) for label in labels),
        confusion=tuple(map(tuple, counts.tolist())),
    )
    backbone = tiny_backbone()
    card = tiny_card(backbone, head, labels, "many").model_copy(update={"metrics": metrics})
    model = graft(backbone, head, card)
    store.publish("many", lambda folder: onnx.save_model(model, folder / MODEL_FILE), who="benchmark", why="")
    store.move("many", 1, who="benchmark", why="")


@contextmanager
def readers(target: str) -> Iterator[list[int]]:
    """Read the model's card until the block ends; yield sizes of answers."""
    is_over, sizes = threading.Event(), list[int]()

    def read() -> None:
        with Client(target) as client:
            while not is_over.is_set():
                sizes.append(client.get_model("many").ByteSize())

    with ThreadPoolExecutor(READERS) as threads:
        reading = [threads.submit(read) for _ in range(READERS)]
        try:
            yield sizes
        finally:
            is_over.set()
    for each in reading:
        each.result()


def window(client: Client) -> tuple[float, float]:
    """Return the median and the 99th percentile of the milliseconds of a classification."""
    image, taken_ms = picture("red"), list[float]()
    end_s = time.perf_counter() + WINDOW_S
    while (began_s := time.perf_counter()) < end_s:
        client.classify(image, name="many")
        taken_ms.append(1000 * (time.perf_counter() - began_s))
    return statistics.median(taken_ms), statistics.quantiles(taken_ms, n=100)[98]


def main() -> None:
    """Do as the module says."""
    classes = int(sys.argv[1]) if len(sys.argv) > 1 else 1_200
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(Path(folder) / "models")
        publish(store, classes)
        with ServerProcess(store.root, {0, 1}, "--plan", "1x1x1") as server, Client(server.target) as client:
            window(client)
            alone, beside, answers = [], [], 0
            for _ in range(ROUNDS):
                alone.append(window(client))
                with readers(server.target) as sizes:
                    beside.append(window(client))
                answers += len(sizes)
    sys.stdout.write(f"{classes} classes, {answers / ROUNDS / WINDOW_S:.0f} answers/s of {sizes[0] / 1e3:.0f} kB\n")
    for name, found in (("alone", alone), ("beside readers", beside)):
        median, worst = (statistics.median(each) for each in zip(*found, strict=True))
        sys.stdout.write(f"{name}: median {median:.1f} ms, p99 {worst:.1f} ms\n")


if __name__ == "__main__":
    main()
