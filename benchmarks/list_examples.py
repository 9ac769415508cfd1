"""Milliseconds of the first page of a model's examples, in every order, and what predictions cost.

    python -m benchmarks.list_examples [--examples 50000] [--size 1280] [--classes 10] [--page 100]

Examples with generated embeddings, of which 1 in 50 bears a wrong label, in SQLite and in a PostgreSQL of its own. It
makes the head's predictions as a server does, then asks for pages as the service does: a page, and how many predictions
are still to be made. It prints, for each database, the seconds of all predictions, the median in milliseconds of first
pages and of pages half way, and how much memory pages took.
"""

import argparse
import hashlib
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from sqlalchemy import insert

from regraft.model.artifact import FloatArray, Head
from regraft.model.card import EmbeddingKey
from regraft.model.fitted_pictures import FittedPictures
from regraft.stores.database.engine import open_database, sqlite_url, transaction
from regraft.stores.database.tables import embeddings, examples, splits
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.listing import Filter, Listed, Order, Side
from regraft.stores.labelling.predictions import head_key
from serving.retraining.predictor import predict
from tests.postgresql import PostgreSQL

_MODEL: Final = "flowers"
_KEY: Final = EmbeddingKey("b" * 64, "1" * 64)
_RUNS: Final = 7
_TOGETHER: Final = 1_000
_WRONG: Final = 50
_ASKED: Final = (
    ("by hash", Filter(), Order.HASH),
    ("newest", Filter(), Order.NEWEST),
    ("likely wrong", Filter(), Order.LIKELY_WRONG),
    ("least sure", Filter(), Order.LEAST_SURE),
    ("most novel", Filter(), Order.MOST_NOVEL),
    ("likely wrong, of a label", Filter(label="label 3"), Order.LIKELY_WRONG),
    ("likely wrong, of the holdout", Filter(side=Side.HOLDOUT), Order.LIKELY_WRONG),
    ("least sure, answered wrongly", Filter(is_right=False), Order.LEAST_SURE),
    ("suspected, newest", Filter(suspected=True), Order.NEWEST),
    ("of an annotator that there is not, newest", Filter(annotator="nobody"), Order.NEWEST),
)


def _head(size: int, classes: int) -> Head:
    means = np.random.default_rng(0).standard_normal((classes, size)).astype(np.float32)
    lengths: FloatArray = np.linalg.norm(means, axis=1, keepdims=True).astype(np.float32)
    weight: FloatArray = np.asarray(means / lengths * 3, np.float32)
    return Head(weight, np.zeros(classes, np.float32), means / lengths, np.zeros((1, size), np.float32))


def _rows(first: int, last: int, head: Head) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Yield an example, its embedding and its side, of each number."""
    random = np.random.default_rng(first)
    true = random.integers(len(head.bias), size=last - first)
    vectors = head.prototypes[true] * 2 + random.standard_normal((last - first, head.weight.shape[1])) * 0.06
    shown = np.where(random.random(last - first) < 1 / _WRONG, random.integers(len(head.bias), size=last - first), true)
    for number in range(first, last):
        row = number - first
        here = {"model": _MODEL, "sha256": hashlib.sha256(b"%d" % number).hexdigest()}
        at = f"2026-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}+00:00"
        yield (
            {**here, "label": f"label {shown[row]}", "source": "a phone", "added_at": at},
            {
                "sha256": here["sha256"],
                "backbone": _KEY.backbone,
                "image_spec": _KEY.image_spec,
                "vector": vectors[row].astype("<f4").tobytes(),
            },
            {**here, "group_name": "", "is_holdout": number % 5 == 0},
        )


def _fill(url: str, count: int, head: Head) -> None:
    engine = open_database(url)
    for first in range(0, count, _TOGETHER):
        rows = list(_rows(first, min(first + _TOGETHER, count), head))
        with transaction(engine, "fill") as connection:
            for table, of_table in zip((examples, embeddings, splits), zip(*rows, strict=True), strict=True):
                connection.execute(insert(table), list(of_table))
    engine.dispose()


def _predict_all(store: ExamplesStore, head: Head, name: str) -> None:
    """Make all predictions, in pieces as large as a server's."""
    labels, after = [f"label {index}" for index in range(len(head.bias))], ""
    while todo := store.predictions.missing(_MODEL, name, _KEY, after=after, most=512):
        answers = predict(head, labels, todo, FittedPictures.none())
        store.predictions.put(_MODEL, name, todo, answers)
        after = todo.sha256[-1]


def _milliseconds(ask: Callable[[], object]) -> float:
    taken = []
    for _ in range(_RUNS):
        began_s = time.perf_counter()
        ask()
        taken.append(1000 * (time.perf_counter() - began_s))
    return median(taken)


def _measure(name: str, url: str, root: Path, arguments: argparse.Namespace) -> None:
    head = _head(arguments.size, arguments.classes)
    key = head_key(head.digest(), _KEY, [])
    _fill(url, arguments.examples, head)
    with closing(ExamplesStore(root, url)) as store:
        began_s = time.perf_counter()
        _predict_all(store, head, key)
        sys.stdout.write(
            f"\n{name}: {arguments.examples:,} predictions in {time.perf_counter() - began_s:.1f} s; a look that finds "
            f"nothing missing takes {_milliseconds(lambda: store.predictions.missing(_MODEL, key, _KEY, most=512)):.0f}"
            " ms\n\n| ms, median of "
            f"{_RUNS} | first page of {arguments.page} | page half way | pictures |\n|---|---|---|---|\n"
        )
        for what, wanted, order in _ASKED:

            def page(after: Any = None, wanted: Filter = wanted, order: Order = order) -> list[Listed]:  # noqa: ANN401 - a place
                store.predictions.pending(_MODEL, key)
                return store.listing.page(_MODEL, wanted, order, head=key, after=after, most=arguments.page)

            every = store.listing.page(_MODEL, wanted, order, head=key, most=arguments.examples)
            half = every[len(every) // 2].place if every else None
            times = _milliseconds(page), _milliseconds(lambda half=half: page(half))  # type: ignore[misc]  # called at once
            sys.stdout.write(f"| {what} | {times[0]:.0f} | {times[1]:.0f} | {len(every):,} |\n")
            sys.stdout.flush()
        del every
        tracemalloc.start()
        page()
        sys.stdout.write(f"\nmemory of a page at its peak: {tracemalloc.get_traced_memory()[1] / 2**20:.1f} MB\n")
        tracemalloc.stop()


def main() -> None:
    """Fill, predict, page and print, on both databases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=1280, help="numbers of an embedding")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--page", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        _measure("SQLite", str(sqlite_url(root / "examples.sqlite")), root, arguments)
        with PostgreSQL.shared(root) as cluster:
            _measure("PostgreSQL", cluster.new_database(), root, arguments)


if __name__ == "__main__":
    main()
