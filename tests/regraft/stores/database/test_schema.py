import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, Table, create_engine, insert, text

from regraft.errors import StorageError
from regraft.label_rules import image_hash
from regraft.model.card import EmbeddingKey
from regraft.stores.database.engine import open_database, reading, sqlite_url
from regraft.stores.database.schema import SCHEMA
from regraft.stores.database.tables import kept_requests, metadata
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import Bounds
from regraft.stores.jobs import JobState
from regraft.stores.labels import AddOutcome, Example
from regraft.stores.unlabelled.requests import KeptRequest

BEFORE_VERSIONS = """
CREATE TABLE examples (model VARCHAR(64) NOT NULL, sha256 VARCHAR(64) NOT NULL, label TEXT NOT NULL,
  source TEXT NOT NULL, added_at VARCHAR(32) NOT NULL, PRIMARY KEY (model, sha256));
CREATE TABLE embeddings (sha256 VARCHAR(64) NOT NULL, backbone VARCHAR(64) NOT NULL, image_spec VARCHAR(64) NOT NULL,
  vector BLOB NOT NULL, PRIMARY KEY (sha256, backbone, image_spec));
CREATE TABLE retrain_jobs (id VARCHAR(32) NOT NULL, model VARCHAR(64) NOT NULL, state VARCHAR(16) NOT NULL,
  phase VARCHAR(32) NOT NULL, fraction FLOAT NOT NULL, message TEXT NOT NULL, settings JSON NOT NULL,
  requested_by TEXT NOT NULL, champion INTEGER, version INTEGER, verdict JSON, cancel_requested BOOLEAN NOT NULL,
  created_at VARCHAR(32) NOT NULL, finished_at VARCHAR(32), PRIMARY KEY (id));
CREATE UNIQUE INDEX one_active_job_a_model ON retrain_jobs (model) WHERE state IN ('PENDING', 'RUNNING');
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "examples.sqlite"


@pytest.fixture
def engine(file: Path) -> Iterator[Engine]:
    engine = open_database(sqlite_url(file))
    yield engine
    engine.dispose()


def version_of(file: Path) -> str:
    with closing(sqlite3.connect(file)) as database:
        (found,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found)


def test_the_steps_lead_to_the_tables_that_the_code_declares(database: str) -> None:
    engine = open_database(database)
    with reading(engine, "compare") as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()

    assert differences == []


def test_the_last_step_is_the_schema_that_the_code_asks_for() -> None:
    steps = ScriptDirectory(str(files("regraft.stores.database") / "migrations"))

    assert steps.get_heads() == [SCHEMA]


def test_a_database_from_before_schemas_had_versions_keeps_what_it_has(tmp_path: Path) -> None:
    file = tmp_path / "examples.sqlite"
    sha256 = image_hash(b"old")
    with closing(sqlite3.connect(file)) as database:
        database.executescript(BEFORE_VERSIONS)
        database.execute("INSERT INTO examples VALUES ('colours', ?, 'red', 'long ago', '2026-01-01')", [sha256])
        database.execute(
            "INSERT INTO retrain_jobs VALUES ('job', 'colours', 'RUNNING', 'fit', 0.5, 'fit', '{}', 'Ann', 1, NULL, "
            "NULL, FALSE, '2026-01-01', NULL)"
        )
        database.commit()

    store = ExamplesStore(tmp_path)

    assert store.labels.in_force("colours") == [Example(sha256, "red", "long ago")]
    assert [labelling.label for labelling in store.labels.history("colours", sha256)] == ["red"]
    assert store.add("colours", b"new", "red") == AddOutcome.ACCEPTED
    (job,) = store.jobs.list()
    assert (job.id, job.state, job.interrupted, job.idempotency_key) == ("job", JobState.RUNNING, "", None)
    store.close()
    assert version_of(file) == SCHEMA


def as_it_was(database: str, revision: str, table: Table, rows: list[dict[str, Any]]) -> None:
    """Make the tables of an earlier state, and fill one."""
    engine = create_engine(database)
    config = Config()
    config.set_main_option("script_location", "regraft.stores.database:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.execute(insert(table), rows)
    engine.dispose()


def test_requests_that_were_kept_before_they_were_counted_are_dropped_in_the_order_of_their_time(
    tmp_path: Path, database: str
) -> None:
    sizes = [("c", 1_000_000_000, "2026-01-03"), ("a", 2_000_000_000, "2026-01-01"), ("b", 1_500_000_000, "2026-01-02")]
    answer = {"model": "colours", "version": 1, "label": "red", "probability": 0.5, "novelty": 0.1, "embedding": b""}
    key = {"backbone": "b", "image_spec": "s"}
    rows = [{**answer, **key, "id": name, "sha256": name, "size_bytes": size, "at": at} for name, size, at in sizes]
    as_it_was(database, "0006", kept_requests, rows)

    with closing(ExamplesStore(tmp_path, database)) as store:
        engine = open_database(database)
        with reading(engine, "count") as connection:
            counted = connection.execute(text("SELECT id, bytes_before FROM kept_requests ORDER BY number")).all()
        engine.dispose()
        vector = np.zeros(2, np.float32)
        new = KeptRequest("d", "colours", 1, image_hash(b"d"), "red", 0.5, 0.1, EmbeddingKey("b", "s"), vector)
        store.requests.keep([(new, b"d")], Bounds(pictures=3, size_bytes=10**11))
        names = [kept.id for kept in store.requests.unlabelled("colours", EmbeddingKey("b", "s"))]

    assert [tuple(row) for row in counted] == [("a", 0), ("b", 2_000_000_000), ("c", 3_500_000_000)]
    assert names == ["b", "c", "d"]


def test_a_database_of_a_newer_regraft_is_refused_and_left_alone(engine: Engine, file: Path) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    with pytest.raises(StorageError, match=f"schema 9999, this Regraft knows up to {SCHEMA}: upgrade Regraft"):
        open_database(sqlite_url(file))

    assert version_of(file) == "9999"


def test_a_store_that_could_not_be_opened_has_no_database_open(engine: Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    store = ExamplesStore(tmp_path, is_opened=False)

    with pytest.raises(StorageError, match="upgrade Regraft"):
        store.open()

    assert not [each for each in Path("/proc/self/fd").iterdir() if each.resolve() == tmp_path / "examples.sqlite"]
    store.close()


def test_a_step_that_fails_leaves_the_database_as_it_was(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE embeddings (something_else TEXT)")
        database.commit()

    with pytest.raises(StorageError, match="embeddings already exists"):
        open_database(sqlite_url(file))

    engine = create_engine(sqlite_url(file))
    with engine.connect() as connection:
        names = connection.execute(text("SELECT name FROM sqlite_master")).scalars().all()
    engine.dispose()
    assert names == ["embeddings"]
