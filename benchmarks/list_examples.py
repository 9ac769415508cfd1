"""Milliseconds of pages of examples, and the cost of predictions.

    python -m benchmarks.list_examples [--examples 50000] [--size 1280] [--classes 10] [--page 100]

Examples with generated embeddings, of which 1 in 50 bears a wrong label, in SQLite and in a PostgreSQL of its own. A
real server answers them in the background when it starts, and is asked for pages with predictions over gRPC. It prints,
for each database, how long all predictions took and the server's CPU time, the median in milliseconds of first pages
and of pages half way, and the memory that the server took for predictions, and for the whole list in pages of 1,000.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sqlalchemy import insert

from benchmarks.server_process import ServerProcess
from regraft.client.client import Client
from regraft.model.artifact import EMBEDDING, IMAGE, OPSET, FloatArray, Head, graft
from regraft.model.card import EmbeddingKey
from regraft.stores.database.engine import open_database, sqlite_url, transaction
from regraft.stores.database.tables import embeddings, examples, splits
from regraft.stores.models import MODEL_FILE, ModelStore
from regraft.v1 import examples_pb2 as pb
from tests.postgresql import PostgreSQL
from tests.tiny import SPEC, tiny_card

_MODEL: Final = "flowers"
_RUNS: Final = 7
_TOGETHER: Final = 1_000
_WRONG: Final = 50
_POLL_S: Final = 0.2
_ORDER: Final = pb.ListExamplesRequest.Order
_OUTCOME_WRONG: Final = pb.ListExamplesRequest.OUTCOME_WRONG
_ASKED: Final[dict[str, dict[str, Any]]] = {
    "by hash": {"with_predictions": True},
    "newest": {"with_predictions": True, "order": _ORDER.ORDER_NEWEST},
    "likely wrong": {"order": _ORDER.ORDER_LIKELY_WRONG},
    "least sure": {"order": _ORDER.ORDER_LEAST_SURE},
    "most novel": {"order": _ORDER.ORDER_MOST_NOVEL},
    "likely wrong, of a label": {"order": _ORDER.ORDER_LIKELY_WRONG, "label": "label 3"},
    "likely wrong, of the holdout": {"order": _ORDER.ORDER_LIKELY_WRONG, "split": pb.SPLIT_HOLDOUT},
    "least sure, answered wrongly": {"order": _ORDER.ORDER_LEAST_SURE, "outcome": _OUTCOME_WRONG},
    "suspected, newest": {"order": _ORDER.ORDER_NEWEST, "suspected": True},
    "of nobody, newest": {"order": _ORDER.ORDER_NEWEST, "annotator": "nobody", "with_predictions": True},
}


def _head(size: int, classes: int) -> Head:
    means = np.random.default_rng(0).standard_normal((classes, size)).astype(np.float32)
    lengths: FloatArray = np.linalg.norm(means, axis=1, keepdims=True).astype(np.float32)
    weight: FloatArray = np.asarray(means / lengths * 3, np.float32)
    return Head(weight, np.zeros(classes, np.float32), means / lengths, np.zeros((1, size), np.float32))


def _backbone(size: int) -> onnx.ModelProto:
    """Return a backbone with embeddings of a size, of pixels and constants."""
    weights = np.random.default_rng(1).standard_normal((3 * SPEC.crop_px**2, size)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", [IMAGE], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], [EMBEDDING]),
    ]
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["N", SPEC.crop_px, SPEC.crop_px, 3])],
        [helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["N", size])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _publish(store: ModelStore, head: Head) -> EmbeddingKey:
    """Publish a version with a head; return the key of its embeddings."""
    backbone, labels = _backbone(head.weight.shape[1]), tuple(f"label {index}" for index in range(len(head.bias)))
    card = tiny_card(backbone, head, labels, _MODEL).model_copy(update={"embedding_size": head.weight.shape[1]})
    model = graft(backbone, head, card)
    version = store.publish(_MODEL, lambda folder: onnx.save_model(model, folder / MODEL_FILE), who="b", why="b")
    store.move(_MODEL, version, who="b", why="b")
    return card.embedding_key


def _rows(first: int, last: int, head: Head, key: EmbeddingKey) -> Iterator[tuple[dict[str, Any], ...]]:
    """Yield an example, its embedding and its side, of each number."""
    random = np.random.default_rng(first)
    true = random.integers(len(head.bias), size=last - first)
    vectors = head.prototypes[true] * 2 + random.standard_normal((last - first, head.weight.shape[1])) * 0.06
    shown = np.where(random.random(last - first) < 1 / _WRONG, random.integers(len(head.bias), size=last - first), true)
    for number in range(first, last):
        row = number - first
        sha256 = hashlib.sha256(b"%d" % number).hexdigest()
        here = {"model": _MODEL, "sha256": sha256}
        at = f"2026-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}+00:00"
        place = {"backbone": key.backbone, "image_spec": key.image_spec}
        yield (
            {**here, "label": f"label {shown[row]}", "source": "a phone", "added_at": at},
            {"sha256": sha256, **place, "vector": vectors[row].astype("<f4").tobytes()},
            {**here, "group_name": "", "is_holdout": number % 5 == 0},
        )


def _fill(url: str, count: int, head: Head, key: EmbeddingKey) -> None:
    engine = open_database(url)
    for first in range(0, count, _TOGETHER):
        rows = list(_rows(first, min(first + _TOGETHER, count), head, key))
        with transaction(engine, "fill") as connection:
            for table, of_table in zip((examples, embeddings, splits), zip(*rows, strict=True), strict=True):
                connection.execute(insert(table), list(of_table))
    engine.dispose()


def _milliseconds(pages: Callable[[], Iterator[object]]) -> float:
    """Measure the first of some pages."""
    taken = []
    for _ in range(_RUNS):
        began_s = time.perf_counter()
        next(pages())
        taken.append(1000 * (time.perf_counter() - began_s))
    return median(taken)


def _wait_for_predictions(client: Client) -> float:
    """Wait until every example has its prediction; return the seconds."""
    began_s = time.perf_counter()
    while next(client.example_pages(page_size=1, with_predictions=True)).predictions_pending:
        time.sleep(_POLL_S)
    return time.perf_counter() - began_s


def _measure(name: str, url: str, root: Path, arguments: argparse.Namespace) -> None:
    head = _head(arguments.size, arguments.classes)
    _fill(url, arguments.examples, head, _publish(ModelStore(root), head))
    with ServerProcess(root, os.sched_getaffinity(0), "--database", url, "--plan", "1x1x1") as server:
        client = Client(server.target, timeout_s=60)
        before_mb = server.resident_mb()
        seconds = _wait_for_predictions(client)
        sys.stdout.write(
            f"\n{name}: {arguments.examples:,} predictions {seconds:.1f} s after the start, which took the server "
            f"{server.cpu_s():.1f} s of CPU; {before_mb:.0f} MB before, {server.peak_mb():.0f} at the peak\n\n"
            f"| ms, median of {_RUNS} | first page of {arguments.page} | half way | pictures |\n|---|---|---|---|\n"
        )
        server.forget_peak()
        for what, asked in _ASKED.items():
            every = [(len(page.examples), page.next_page_token) for page in client.example_pages(**asked)]
            half = every[len(every) // 2][1] if len(every) > 1 else ""
            pages = partial(client.example_pages, **asked, page_size=arguments.page)
            times = _milliseconds(pages), _milliseconds(partial(pages, page_token=half))
            count = sum(size for size, _ in every)
            sys.stdout.write(f"| {what} | {times[0]:.0f} | {times[1]:.0f} | {count:,} |\n")
            sys.stdout.flush()
        sys.stdout.write(f"\n{server.peak_mb():.0f} MB at the peak of all lists, in pages of 1,000\n")
        client.close()


def main() -> None:
    """Fill, serve, page and print, on both databases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=1280, help="numbers of an embedding")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--page", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        _measure("SQLite", str(sqlite_url(root / "examples.sqlite")), root / "one", arguments)
        with PostgreSQL.shared(root) as cluster:
            _measure("PostgreSQL", cluster.new_database(), root / "other", arguments)


if __name__ == "__main__":
    main()
