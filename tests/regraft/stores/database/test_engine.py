from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from sqlalchemy import Engine, delete, event, insert, select, text, update

from regraft.cancellation import set_wanted
from regraft.errors import DeadlineError, StorageError
from regraft.label_rules import image_hash
from regraft.model.card import EmbeddingKey
from regraft.stores.database.engine import Patience, close_database, open_database, reading, transaction
from regraft.stores.database.tables import examples
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import Bounds
from regraft.stores.jobs import JobState
from regraft.stores.labels import NewExample
from regraft.stores.unlabelled.pool import NewPicture
from regraft.stores.unlabelled.requests import KeptRequest
from tests.postgresql import PostgreSQL
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
    store.pool.add(MODEL, [NewPicture(b"picture %d" % number) for number in range(5)], Bounds())
    store.jobs.create(MODEL, {}, "ada", "a key")
    yield store
    store.close()


ASKED: dict[str, Callable[[ExamplesStore], object]] = {
    "an example by the beginning of its hash": lambda store: store.labels.find(MODEL, SHA256[:12]),
    "one that was removed": lambda store: store.labels.find(MODEL, SHA256[:12], or_removed=True),
    "examples without an embedding": lambda store: store.labels.without_embedding(MODEL, KEY, 64, after=3),
    "examples in quarantine": lambda store: store.labels.in_force(MODEL, quarantined=True),
    "the history of an example": lambda store: store.labels.history(MODEL, SHA256),
    "labels since the last retrain": lambda store: store.labels.labelled_since(MODEL, LATER),
    "a relabelling within a quota": lambda store: store.labels.relabel(
        MODEL, SHA256, "blue", caller="ada", hourly_quota=1000
    ),
    "a removal": lambda store: store.labels.remove(MODEL, SHA256, caller="ada", hourly_quota=1000),
    "labels that come in": lambda store: store.add_all(
        MODEL, [NewExample(b"new", "red", group="one")], caller="ada", hourly_quota=1000
    ),
    "embeddings by hash": lambda store: store.embeddings.get(KEY, [SHA256]),
    "requests that are kept, and the oldest dropped": lambda store: store.requests.keep([kept(9)], Bounds(pictures=2)),
    "the oldest dropped beyond the bytes": lambda store: store.requests.keep([kept(8)], Bounds(size_bytes=2)),
    "a kept request": lambda store: store.requests.find("id8"),
    "requests to label": lambda store: store.requests.unlabelled(MODEL, KEY),
    "pictures without a label that come in": lambda store: store.pool.add(MODEL, [NewPicture(b"new")], Bounds()),
    "a picture without a label": lambda store: store.pool.find(MODEL, image_hash(b"picture 1")),
    "pictures without a label nor an embedding": lambda store: store.pool.without_embedding(MODEL, KEY, 64, after=3),
    "a few to choose from": lambda store: store.pool.candidates(MODEL, KEY, 64, "5"),
    "the first page of pictures without a label": lambda store: store.pool.page(MODEL, most=200),
    "a later page of pictures without a label": lambda store: store.pool.page(MODEL, most=200, before=4),
    "a picture that is removed": lambda store: store.pool.remove(MODEL, [image_hash(b"picture 2")]),
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


def test_whoever_waits_for_a_writer_in_vain_is_told_so_and_nothing_is_kept(database: str) -> None:
    engine = open_database(database, Patience(lock_s=0.2))
    with holding_the_examples(engine):
        with pytest.raises(StorageError, match=r"another process has been writing|lock timeout"):
            relabel(engine)
        assert labels(engine) == ["red"], "readers never wait"
    relabel(engine)
    assert labels(engine) == ["blue"]
    close_database(engine)


def test_what_nobody_waits_for_any_more_is_undone(database: str) -> None:
    engine = open_database(database)
    with holding_the_examples(engine):
        pass

    is_given_up, context = Event(), copy_context()
    context.run(set_wanted, lambda: not is_given_up.is_set())
    with pytest.raises(DeadlineError, match="was not done"):
        context.run(relabel, engine, is_given_up.set)
    assert labels(engine) == ["red"]
    with pytest.raises(DeadlineError):
        context.run(relabel, engine, lambda: pytest.fail("it began"))
    close_database(engine)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_writer_that_is_given_up_stops_to_wait_for_others(database: str) -> None:
    """SQLite alone: PostgreSQL ends a wait for its locks by a timeout."""
    engine, is_given_up = open_database(database, Patience(lock_s=3600)), Event()
    context = copy_context()
    context.run(set_wanted, lambda: not is_given_up.is_set())
    with ThreadPoolExecutor(1) as thread, holding_the_examples(engine):
        waiting = thread.submit(context.run, relabel, engine)
        is_given_up.set()
        with pytest.raises(DeadlineError):
            waiting.result(60)
    close_database(engine)


def test_a_database_that_is_stopped_is_an_error_soon_and_is_used_again_when_it_goes_on(postgresql: PostgreSQL) -> None:
    engine = open_database(postgresql.new_database(), Patience(connect_s=2, answer_s=0.2))
    with holding_the_examples(engine):
        pass
    with postgresql.stopped():
        with pytest.raises(StorageError, match=r"has not answered for 0\.2 s|timeout"):
            relabel(engine)
        with pytest.raises(StorageError, match="timeout"):  # a new connection
            relabel(engine)
    relabel(engine)
    assert labels(engine) == ["blue"]
    close_database(engine)


def test_a_statement_that_takes_too_long_is_ended(postgresql: PostgreSQL) -> None:
    engine = open_database(postgresql.new_database(), Patience(statement_s=0.2))
    with pytest.raises(StorageError, match="statement timeout"), reading(engine, "cannot sleep") as connection:
        connection.execute(text("SELECT pg_sleep(30)"))
    close_database(engine)


def test_limits_that_the_url_states_stay(postgresql: PostgreSQL) -> None:
    url = postgresql.url("&options=-cstatement_timeout%3D77s%20-clock_timeout%3D0")
    engine = open_database(url)
    with reading(engine, "cannot ask") as connection:
        limits = [
            connection.execute(text(f"SHOW {name}")).scalar_one() for name in ("statement_timeout", "lock_timeout")
        ]
    assert limits == ["77s", "10s"]
    close_database(engine)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_tables_that_are_up_to_date_are_opened_whoever_writes_to_them(database: str) -> None:
    engine = open_database(database)
    with holding_the_examples(engine):
        close_database(open_database(database, Patience(lock_s=0.1)))
    close_database(engine)


@contextmanager
def holding_the_examples(engine: Engine) -> Iterator[None]:
    """Hold a writing transaction on one example until the block ends."""
    with transaction(engine, "cannot write") as connection:
        connection.execute(delete(examples))
        connection.execute(insert(examples).values(model="m", sha256="0", label="red", source="", added_at=""))
    with transaction(engine, "cannot write") as connection:
        connection.execute(update(examples).values(source="held"))
        yield


def relabel(engine: Engine, meanwhile: Callable[[], object] = lambda: None) -> None:
    with transaction(engine, "cannot relabel") as connection:
        connection.execute(update(examples).values(label="blue"))
        meanwhile()


def labels(engine: Engine) -> list[str]:
    with reading(engine, "cannot read") as connection:
        return list(connection.execute(select(examples.c.label)).scalars())
