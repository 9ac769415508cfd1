"""Milliseconds of a server's queries, with few rows and with many.

    python -m benchmarks.rows [--rows 100000] [--database URL]

SQLite in a temporary folder, or PostgreSQL by URL, whose tables are filled with rows that no picture stands behind. It
prints, for each statement, the median in milliseconds of a few runs, with a hundredth of the rows and with all: what is
found by an index takes as long.
"""

import argparse
import hashlib
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from sqlalchemy import Table, insert, text

from regraft.model.card import EmbeddingKey
from regraft.stores.database.engine import open_database, sqlite_url, transaction
from regraft.stores.database.tables import embeddings, examples, kept_requests, label_history, retrain_jobs
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import Bounds
from regraft.stores.jobs import JobState
from regraft.stores.unlabelled.requests import KeptRequest

_MODEL: Final = "flowers"
_KEY: Final = EmbeddingKey("b" * 64, "1" * 64)
_VECTOR: Final = np.zeros(64, np.float32)
_RUNS: Final = 7
_FEW: Final = 100
"""So many times fewer rows at first."""
_TOGETHER: Final = 2_000
_BEGAN: Final = datetime(2026, 1, 1, tzinfo=UTC)


def _hash(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def _at(number: int) -> str:
    return (_BEGAN + timedelta(seconds=number)).isoformat(timespec="microseconds")


def _rows(number: int) -> Iterator[tuple[Table, dict[str, Any]]]:
    """Yield the rows that number ``number`` has in every table."""
    sha256, at = _hash(number), _at(number)
    here = {"model": _MODEL, "sha256": sha256, "label": "tulip", "source": ""}
    yield examples, {**here, "added_at": at}
    yield label_history, {**here, "annotator": "", "request_id": "", "caller": "ada", "at": at[:19]}
    vector = _VECTOR.tobytes()
    yield embeddings, {"sha256": sha256, "backbone": _KEY.backbone, "image_spec": _KEY.image_spec, "vector": vector}
    answer = {"version": 1, "label": "tulip", "probability": 0.9, "novelty": 0.1}
    place = {"size_bytes": 100_000, "at": at, "number": number + 1, "bytes_before": 100_000 * number}
    kept = {"id": f"{number:032}", "model": _MODEL, "sha256": _hash(-1 - number), "embedding": vector}
    yield kept_requests, {**kept, **answer, **place, "backbone": _KEY.backbone, "image_spec": _KEY.image_spec}
    state = {"state": "REFUSED", "settings": {}, "verdict": {"reasons": ["no better"] * 20}, "created_at": at}
    yield retrain_jobs, {"id": f"{number:032}", "model": _MODEL, **state, "requested_by": "ada", "finished_at": at}


def _fill(url: str, first: int, last: int) -> None:
    engine = open_database(url)
    for begin in range(first, last, _TOGETHER):
        of_table: dict[Table, list[dict[str, Any]]] = {}
        for number in range(begin, min(begin + _TOGETHER, last)):
            for table, row in _rows(number):
                of_table.setdefault(table, []).append(row)
        with transaction(engine, "fill") as connection:
            for table, rows in of_table.items():
                connection.execute(insert(table), rows)
    with transaction(engine, "count") as connection:
        connection.execute(text("ANALYZE"))
    engine.dispose()


def _asked(store: ExamplesStore, rows: int) -> dict[str, Callable[[], object]]:
    """Return what is asked again and again, by name."""

    def keep() -> None:
        name = uuid.uuid4().hex
        request = KeptRequest(name, _MODEL, 1, 2 * name, "tulip", 0.9, 0.1, _KEY, _VECTOR)
        store.requests.keep([(request, b"picture")], Bounds(rows, 2**50))

    return {
        "an example by the beginning of its hash": lambda: store.labels.find(_MODEL, _hash(0)[:12]),
        "examples without an embedding": lambda: store.labels.without_embedding(_MODEL, _KEY, 64, after=rows),
        "a request kept, the oldest dropped": keep,
        "kept requests to label": lambda: store.requests.unlabelled(_MODEL, _KEY),
        "a job by its key": lambda: store.jobs.with_key(_MODEL, "a key"),
        "jobs that run": lambda: store.jobs.list("", JobState.RUNNING),
        "a page of 200 jobs, half way": lambda: store.jobs.list(before=(_at(rows // 2), "x"), most=200),
        "a page of a model's jobs, half way": lambda: store.jobs.list(_MODEL, before=(_at(rows // 2), "x"), most=200),
        "labels since a retrain": lambda: store.labels.labelled_since(_MODEL, _at(rows - 100)),
        "examples in quarantine": lambda: store.labels.in_force(_MODEL, quarantined=True),
        "counts for the metrics, every 15 s": lambda: store.labels.states(_MODEL, _KEY),
    }


def _milliseconds(ask: Callable[[], object]) -> float:
    taken = []
    for _ in range(_RUNS):
        began_s = time.perf_counter()
        ask()
        taken.append(1000 * (time.perf_counter() - began_s))
    return median(taken)


def main() -> None:
    """Fill, time, fill, time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--database", default="")
    arguments = parser.parse_args()
    few = arguments.rows // _FEW
    with tempfile.TemporaryDirectory() as scratch:
        url = arguments.database or str(sqlite_url(Path(scratch) / "examples.sqlite"))
        with closing(ExamplesStore(Path(scratch), url)) as store:
            _fill(url, 0, few)
            before = {what: _milliseconds(ask) for what, ask in _asked(store, few).items()}
            _fill(url, few + 1000, arguments.rows + 1000)
            sys.stdout.write(f"| ms, median of {_RUNS} | {few:,} rows | {arguments.rows:,} rows |\n|---|---|---|\n")
            for what, ask in _asked(store, arguments.rows).items():
                sys.stdout.write(f"| {what} | {before[what]:.1f} | {_milliseconds(ask):.1f} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
