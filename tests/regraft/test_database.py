from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event

import pytest
from sqlalchemy import Engine, delete, event, insert, select, text, update

from regraft.database import Patience, close_database, examples, open_database, reading, transaction
from regraft.errors import DeadlineError, StorageError
from regraft.wanted import set_wanted
from tests.postgresql import PostgreSQL


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
    """Where it is PostgreSQL's lock it ends by its timeout."""
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
    """Write one example, and hold on to it, as somebody else would, until the block ends."""
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
