"""What the tests of several stores need."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from regraft.stores.database.engine import open_database
from regraft.stores.examples import ExamplesStore

MODEL = "colours"


def data(number: int) -> bytes:
    """Return bytes that stand for a picture."""
    return f"picture {number}".encode() * 50


@pytest.fixture
def examples_store(tmp_path: Path, database: str) -> Iterator[ExamplesStore]:
    """An empty store, its pictures in ``tmp_path / "examples"``."""
    store = ExamplesStore(tmp_path / "examples", database)
    yield store
    store.close()


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """An empty database with all tables."""
    engine = open_database(database)
    yield engine
    engine.dispose()
