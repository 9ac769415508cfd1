"""SQLite or PostgreSQL, opened, read and written within time limits."""

import logging
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Column, Connection, Engine, Table, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

from regraft.cancellation import check_wanted
from regraft.errors import InvalidRequestError, LockedError, MissingPackageError, StorageError
from regraft.files import locked, storage_errors
from regraft.stores.database.file_systems import MOUNTS, network_file_system
from regraft.stores.database.schema import bring_up_to_date, is_up_to_date


@dataclass(frozen=True)
class Patience:
    """Limits of waiting for a database, in seconds.

    Beyond them there is an error; changes to the tables themselves take any time.

    Attributes:
        connect_s: for a connection; PostgreSQL's library makes it 2 at least.
        statement_s: for one statement.
        lock_s: for what others are writing.
        answer_s: for a database that says nothing at all, as one that is stopped.
    """

    connect_s: float = 5.0
    statement_s: float = 20.0
    lock_s: float = 10.0
    answer_s: float = 25.0


DEFAULT_PATIENCE: Final = Patience()

log = logging.getLogger("regraft.database")

_REFUSAL: Final = "refusal"
_ON_A_NETWORK: Final = (
    "%s lies on %s: SQLite's locks and shared memory are those of one machine, so that two that use it damage it, and "
    "one may lose what it acknowledged. Put --examples on a disk of this machine, or use PostgreSQL (--database)"
)
_MIGRATION_PATIENCE_S: Final = 60.0
"""How long opening waits for another process that brings the tables up to date."""
_A_TRY_S: Final = 0.1
"""How long SQLite itself waits for a writer, before cancellation is looked for."""
_PART: Final = 500
"""Values of one statement, of which every database takes so many."""
_PRIMARY: Final = 0xFF
"""The primary part of SQLite's error codes."""


def open_database(url: str | URL, patience: Patience = DEFAULT_PATIENCE) -> Engine:
    """Open a database and bring its tables up to date.

    The caller disposes of the engine. Whatever is done with it later waits as long as ``patience`` says, and no longer.

    Raises:
        StorageError: it cannot be opened, or a newer Regraft made it.
        MissingPackageError: the URL's driver is not installed.
    """
    engine = database_at(url, patience)
    prepare_database(engine)
    return engine


def database_at(url: str | URL, patience: Patience = DEFAULT_PATIENCE) -> Engine:
    """Return the engine of a database without connecting to it.

    It refuses all work until `prepare_database`.

    Raises:
        StorageError: that is no URL.
        MissingPackageError: the URL's driver is not installed.
    """
    with database_errors("cannot open the database"):
        engine = _engine(url, patience)
    refuse_work(engine, "the database has not answered yet")
    return engine


def prepare_database(engine: Engine, mounts: Path = MOUNTS) -> None:
    """Bring the tables up to date; may be tried again.

    SQLite on a network file system is warned of: its locks and its shared memory are those of one machine. A failure
    leaves no connection open.

    Args:
        engine: of `database_at`.
        mounts: see `regraft.stores.database.file_systems`.

    Raises:
        StorageError: it cannot be opened, or a newer Regraft made it.
    """
    with database_errors("cannot open the database"):
        # SQLite refuses those who turn on WAL or create tables at the same time, instead of letting them wait.
        database = engine.url.database if engine.dialect.name == "sqlite" else None
        if database and (name := network_file_system(Path(database), mounts)):
            log.warning(_ON_A_NETWORK, database, name)
        with (
            storage_errors("cannot open the database"),
            locked(Path(f"{database}.lock"), _MIGRATION_PATIENCE_S) if database else nullcontext(),
        ):
            try:
                _bring_up_to_date(engine)
            except BaseException:
                engine.dispose()
                raise
    refuse_work(engine, "")


def _bring_up_to_date(engine: Engine) -> None:
    """Take the migration steps that a database lacks, if any."""
    with engine.connect() as connection, connection.begin():
        if is_up_to_date(connection):
            return
    with (
        engine.connect().execution_options(writes=True) as connection,
        connection.begin(),
        _without_limits(connection),
    ):
        one_at_a_time(connection, "the tables")
        bring_up_to_date(connection)


def _without_limits(connection: Connection) -> AbstractContextManager[None]:
    if connection.dialect.name != "postgresql":
        return nullcontext()
    driver: Any = connection.connection.driver_connection
    unlimited: AbstractContextManager[None] = driver.unlimited(_MIGRATION_PATIENCE_S)
    return unlimited


def _engine(url: str | URL, patience: Patience) -> Engine:
    try:
        dialect = make_url(url).get_backend_name()
        if dialect == "postgresql":
            # A server that was restarted must not fail the first request after it.
            engine = create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": round(patience.connect_s)})
            event.listen(engine, "do_connect", partial(_connect_to_postgresql, patience))
            return engine
        if dialect == "sqlite":
            engine = create_engine(url)
            event.listen(engine, "connect", partial(_prepare_sqlite, patience))
            event.listen(engine, "begin", partial(_begin_sqlite, patience))
            return engine
    except ImportError as error:
        raise MissingPackageError(
            f"the database's driver {error.name} is missing: for postgresql+psycopg://, pip install 'regraft[postgres]'"
        ) from error
    raise InvalidRequestError(f"--database {dialect}://: need a URL of sqlite or postgresql+psycopg")


def close_database(engine: Engine) -> None:
    """Close every connection, those in use when they are given back."""
    event.listen(engine, "checkin", lambda _driver, record: record.invalidate())
    engine.dispose()


def sqlite_url(path: Path) -> URL:
    """Return the URL of an SQLite file, whose folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return URL.create("sqlite", database=str(path))


@contextmanager
def database_errors(what: str) -> Iterator[None]:
    """Turn a database's errors, but broken constraints, into a `StorageError`."""
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        raise StorageError(f"{what}: {getattr(error, 'orig', None) or error}") from error


@contextmanager
def transaction(engine: Engine, what: str) -> Iterator[Connection]:
    """Run one writing transaction, committed durably at the end.

    After an error, or where nobody waits for it any more (`regraft.cancellation`), it is undone.
    """
    check_wanted()
    with database_errors(what), _connect(engine, what).execution_options(writes=True) as connection, connection.begin():
        yield connection
        check_wanted()


@contextmanager
def reading(engine: Engine, what: str) -> Iterator[Connection]:
    """Run one reading transaction; it neither waits for writers nor stops them."""
    with database_errors(what), _connect(engine, what) as connection, connection.begin():
        yield connection


def refuse_work(engine: Engine, why: str) -> None:
    """Refuse all work for a reason; allow it without one."""
    engine.update_execution_options(**{_REFUSAL: why})


def _connect(engine: Engine, what: str) -> Connection:
    if why := engine.get_execution_options().get(_REFUSAL):
        raise StorageError(f"{what}: {why}; the server tries again in the background")
    return engine.connect()


def one_at_a_time(connection: Connection, what: str) -> None:
    """Exclude other transactions for the same ``what``; SQLite does anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"regraft: {what}"))))


def beside_each_other(connection: Connection, what: str) -> None:
    """Exclude those only that want ``what`` `one_at_a_time`."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock_shared(func.hashtext(f"regraft: {what}"))))


def insert_or(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an insertion with a choice on conflicts."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def in_parts(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield values, so many at once as a statement takes."""
    for start in range(0, len(values), _PART):
        yield values[start : start + _PART]


def unused(connection: Connection, column: Column[str], values: Collection[str]) -> list[str]:
    """Return those values that no row has in a column."""
    if not values:
        return []
    used = connection.execute(select(column).where(column.in_(values))).scalars()
    return sorted({*values}.difference(used))


def _connect_to_postgresql(
    patience: Patience, _dialect: object, _record: object, arguments: Sequence[Any], options: Mapping[str, Any]
) -> object:
    from regraft.stores.database.postgresql import LimitedConnection  # noqa: PLC0415 - its package is optional

    connection = LimitedConnection.connect(*arguments, **options)
    connection.limit(statement_s=patience.statement_s, lock_s=patience.lock_s, answer_s=patience.answer_s)
    return connection


def _prepare_sqlite(patience: Patience, driver: Any, _record: object) -> None:  # noqa: ANN401 - SQLAlchemy hands over the raw driver's object
    driver.isolation_level = None  # or the driver begins transactions on its own; `_begin_sqlite` does it
    _wait_in_sqlite(driver, patience.lock_s)
    driver.execute("PRAGMA journal_mode = WAL")
    driver.execute("PRAGMA synchronous = FULL")  # in WAL mode only FULL makes a commit survive a power cut


def _wait_in_sqlite(driver: Any, seconds: float) -> None:  # noqa: ANN401 - as above
    driver.execute(f"PRAGMA busy_timeout = {1000 * seconds:.0f}")


def _begin_sqlite(patience: Patience, connection: Connection) -> None:
    if not connection.get_execution_options().get("writes", False):
        connection.exec_driver_sql("BEGIN")
        return
    # A transaction that reads first and writes later is refused at once when another writer came between.
    driver = connection.connection.driver_connection
    _wait_in_sqlite(driver, _A_TRY_S)
    give_up_s = time.monotonic() + patience.lock_s
    while not _is_begun(connection):
        check_wanted()
        if time.monotonic() >= give_up_s:
            raise LockedError(f"another process has been writing to {connection.engine.url.database}: try again later")
    _wait_in_sqlite(driver, patience.lock_s)


def _is_begun(connection: Connection) -> bool:
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    except OperationalError as error:
        if getattr(error.orig, "sqlite_errorcode", 0) & _PRIMARY != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True
