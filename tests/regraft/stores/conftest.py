"""Fixtures of the tests of several stores."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from regraft.stores.database.engine import open_database
from regraft.stores.examples import ExamplesStore

MODEL = "colours"


def data(number: int) -> bytes:
    """Return bytes that stand for a picture."""
    return f"picture {number}".encode() * 50


def labels_by_hash(store: ExamplesStore) -> dict[str, str]:
    return {example.sha256: example.label for example in store.labels.in_force(MODEL)}


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """An empty database with all tables."""
    engine = open_database(database)
    yield engine
    engine.dispose()
