"""The tables behind the examples store, and how they are opened, read and written. SQLite, or PostgreSQL by URL.

A change to a table is a step in `regraft.migrations.versions` too; see `regraft.schema`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    JSON,
    URL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from regraft.errors import InvalidRequestError, MissingPackageError, StorageError
from regraft.files import locked, storage_errors
from regraft.schema import bring_up_to_date

metadata = MetaData()

_CONNECT_S: Final = 10
_MIGRATION_PATIENCE_S: Final = 60.0
"""So long whoever opens SQLite waits for another process that brings its tables up to date."""

_ASIDE = text("quarantine <> ''")
_BIG = BigInteger().with_variant(Integer, "sqlite")  # whose integers have 64 bits anyway

examples = Table(
    "examples",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("label", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("added_at", String(32), nullable=False),
    Column("quarantine", Text, nullable=False, server_default=""),
    Column("vouched_by", Text, nullable=False, server_default=""),
    Index("examples_in_quarantine", "model", "sha256", sqlite_where=_ASIDE, postgresql_where=_ASIDE),
)

label_history = Table(
    "label_history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("label", Text),  # none: the example was removed
    Column("source", Text, nullable=False),
    Column("annotator", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Index("label_history_of_an_example", "model", "sha256"),
    Index("label_history_of_a_caller", "caller", "at"),
    Index("label_history_by_time", "model", "at"),
    Index("label_history_in_turn", "model", "id"),
)
"""Every label that an example was ever given; only ever appended to. `examples` holds what is in force."""

splits = Table(
    "splits",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("group_name", Text, nullable=False),
    Column("is_holdout", Boolean),  # none: no retrain has used it yet
)
"""Which group a picture belongs to, and on which side of the split it is; both outlive the example."""

kept_requests = Table(
    "kept_requests",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("size_bytes", _BIG, nullable=False),
    Column("label", Text, nullable=False),
    Column("probability", Float, nullable=False),
    Column("novelty", Float, nullable=False),
    Column("backbone", String(64), nullable=False),
    Column("image_spec", String(64), nullable=False),
    Column("embedding", LargeBinary, nullable=False),  # float32, little-endian
    Column("at", String(32), nullable=False),
    # Both grow from row to row, so that what lies beyond a bound is found at its end, without adding up the others.
    Column("number", _BIG, nullable=False, server_default="0"),
    Column("bytes_before", _BIG, nullable=False, server_default="0"),
    Index("kept_requests_in_turn", "number", unique=True),
    Index("kept_requests_by_bytes", "bytes_before", "number"),
    Index("kept_requests_of_a_model", "model", "backbone", "image_spec", "number"),
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("backbone", String(64), primary_key=True),
    Column("image_spec", String(64), primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # float32, little-endian
)

_ACTIVE = text("state IN ('PENDING', 'RUNNING')")

retrain_jobs = Table(
    "retrain_jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("phase", String(32), nullable=False, default=""),
    Column("fraction", Float, nullable=False, default=0.0),
    Column("message", Text, nullable=False, default=""),
    Column("settings", JSON, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("champion", Integer),
    Column("version", Integer),
    Column("verdict", JSON),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("created_at", String(32), nullable=False),
    Column("finished_at", String(32)),
    Column("idempotency_key", String(128)),
    Column("interrupted", Text, nullable=False, server_default=""),
    Index("one_job_a_key", "model", "idempotency_key", unique=True),
    # The database itself sees to it that a model has one job at a time, whoever asks.
    Index("one_active_job_a_model", "model", unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    Index("retrain_jobs_by_age", "created_at", "id"),
    Index("retrain_jobs_of_a_model", "model", "created_at", "id"),
    Index("retrain_jobs_in_a_state", "state", "created_at", "id"),
)


def open_database(url: str | URL) -> Engine:
    """Open the database at ``url`` and bring its tables up to date; the caller disposes of the engine.

    Raises:
        StorageError: it cannot be opened, or a newer Regraft made it.
        MissingPackageError: the URL's driver is not installed.
    """
    with database_errors("cannot open the database"):
        engine = _engine(url)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        # SQLite refuses those who turn on WAL or create tables at the same time, instead of letting them wait.
        database = engine.url.database if engine.dialect.name == "sqlite" else None
        with (
            storage_errors("cannot open the database"),
            locked(Path(f"{database}.lock"), _MIGRATION_PATIENCE_S) if database else nullcontext(),
            engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            one_at_a_time(connection, "the tables")
            bring_up_to_date(connection)
    return engine


def _engine(url: str | URL) -> Engine:
    try:
        dialect = make_url(url).get_backend_name()
        if dialect == "postgresql":
            # A server that was restarted must not fail the first request after it.
            return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": _CONNECT_S})
        if dialect == "sqlite":
            return create_engine(url)
    except ImportError as error:
        raise MissingPackageError(
            f"the database's driver {error.name} is missing: for postgresql+psycopg://, pip install 'regraft[postgres]'"
        ) from error
    raise InvalidRequestError(f"--database {dialect}://: need a URL of sqlite or postgresql+psycopg")


def close_database(engine: Engine) -> None:
    """Close every connection: those at rest now, those that a thread still uses when it gives them back."""
    event.listen(engine, "checkin", lambda _driver, record: record.invalidate())
    engine.dispose()


def sqlite_url(path: Path) -> URL:
    """Return the URL of an SQLite file, whose folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return URL.create("sqlite", database=str(path))


@contextmanager
def database_errors(what: str) -> Iterator[None]:
    """Turn the database's errors, but not those of broken constraints, into a `StorageError`."""
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        raise StorageError(f"{what}: {getattr(error, 'orig', None) or error}") from error


@contextmanager
def transaction(engine: Engine, what: str) -> Iterator[Connection]:
    """Run one writing transaction: committed, and so on the disk, when the block ends without an error."""
    with database_errors(what), engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


@contextmanager
def reading(engine: Engine, what: str) -> Iterator[Connection]:
    """Run one reading transaction, which neither waits for a writer nor holds one up."""
    with database_errors(what), engine.connect() as connection, connection.begin():
        yield connection


def one_at_a_time(connection: Connection, what: str) -> None:
    """Let no other transaction that asks for the same go on until this one ends; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"regraft: {what}"))))


def insert_or(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an insertion that can be told what to do on a conflict."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _prepare_sqlite(driver: Any, _record: object) -> None:  # noqa: ANN401 - SQLAlchemy hands over the raw driver's object
    driver.isolation_level = None  # or the driver begins transactions on its own; `_begin_sqlite` does it
    cursor = driver.cursor()
    cursor.execute("PRAGMA busy_timeout = 30000")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # in WAL mode only FULL makes a commit survive a power cut
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later is refused at once when another writer came between.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
