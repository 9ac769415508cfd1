from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event

from regraft.database import close_database, open_database
from regraft.embeddings import EmbeddingKey
from regraft.examples import ExamplesStore, NewExample, image_hash
from regraft.kept_requests import Bounds, KeptRequest
from regraft.retrain_jobs import JobState
from tests.regraft.plans import plans_told

MODEL = "colours"
KEY = EmbeddingKey("b" * 64, "1" * 64)
SHA256 = image_hash(b"0")
LATER = "2030-01-01T00:00:00+00:00"


def kept(number: int) -> tuple[KeptRequest, bytes]:
    vector = np.zeros(2, np.float32)
    return KeptRequest(f"id{number}", MODEL, 1, image_hash(b"%d" % number), "red", 0.5, 0.1, KEY, vector), b"0"


@pytest.fixture
def store(tmp_path: Path, database: str) -> Iterator[ExamplesStore]:
    """A store with a few rows in every table."""
    store = ExamplesStore(tmp_path / "examples", database)
    store.add_all(MODEL, [NewExample(b"%d" % number, "red", group="one") for number in range(5)], caller="ada")
    store.embeddings.put(KEY, {SHA256: np.zeros(2, np.float32)})
    store.requests.keep([kept(number) for number in range(5)], Bounds())
    store.jobs.create(MODEL, {}, "ada", "a key")
    yield store
    store.close()


ASKED: dict[str, Callable[[ExamplesStore], object]] = {
    "an example by the beginning of its hash": lambda store: store.find(MODEL, SHA256[:12]),
    "one that was removed": lambda store: store.find(MODEL, SHA256[:12], or_removed=True),
    "examples without an embedding": lambda store: store.without_embedding(MODEL, KEY, 64, after=3),
    "examples in quarantine": lambda store: store.list(MODEL, quarantined=True),
    "the history of an example": lambda store: store.history(MODEL, SHA256),
    "labels since the last retrain": lambda store: store.labelled_since(MODEL, LATER),
    "a relabelling within a quota": lambda store: store.relabel(MODEL, SHA256, "blue", caller="ada", hourly_quota=1000),
    "a removal": lambda store: store.remove(MODEL, SHA256, caller="ada", hourly_quota=1000),
    "labels that come in": lambda store: store.add_all(
        MODEL, [NewExample(b"new", "red", group="one")], caller="ada", hourly_quota=1000
    ),
    "embeddings by hash": lambda store: store.embeddings.get(KEY, [SHA256]),
    "requests that are kept, and the oldest dropped": lambda store: store.requests.keep([kept(9)], Bounds(requests=2)),
    "the oldest dropped beyond the bytes": lambda store: store.requests.keep([kept(8)], Bounds(size_bytes=2)),
    "a kept request": lambda store: store.requests.find("id8"),
    "requests to label": lambda store: store.requests.unlabelled(MODEL, KEY),
    "a job": lambda store: store.jobs.list(MODEL, most=1)[0],
    "a job by its key": lambda store: store.jobs.with_key(MODEL, "a key"),
    "jobs that wait": lambda store: store.jobs.list("", JobState.PENDING),
    "jobs that run": lambda store: store.jobs.list("", JobState.RUNNING),
    "the last job that a gate judged": lambda store: store.jobs.list(MODEL, JobState.REFUSED, most=1),
    "the first page of jobs": lambda store: store.jobs.list(most=200),
    "a later page of jobs": lambda store: store.jobs.list(before=(LATER, "x"), most=200),
    "a later page of a model's jobs": lambda store: store.jobs.list(MODEL, before=(LATER, "x"), most=200),
}


def test_whatever_is_asked_often_is_found_by_an_index_and_comes_in_its_order(store: ExamplesStore) -> None:
    for what, ask in ASKED.items():
        with plans_told() as plans:
            ask(store)

        assert plans.steps, what
        assert not plans.grown(), what
        assert "page" not in what or not plans.sorted(), what


def test_a_connection_that_a_thread_still_uses_is_closed_when_it_is_given_back(database: str) -> None:
    """Otherwise it stays open until it is garbage, of which psycopg warns."""
    engine = open_database(database)
    closed: list[object] = []
    event.listen(engine, "close", lambda driver, _record: closed.append(driver))
    in_use = engine.connect()
    driver = in_use.connection.dbapi_connection

    close_database(engine)
    assert driver not in closed
    in_use.close()

    assert driver in closed
