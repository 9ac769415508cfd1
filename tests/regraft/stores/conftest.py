"""Fixtures of the tests of several stores."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from regraft.stores.database.engine import open_database

MODEL = "colours"


def data(number: int) -> bytes:
    """Return bytes that stand for a picture."""
    return f"picture {number}".encode() * 50


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """An empty database with all tables."""
    engine = open_database(database)
    yield engine
    engine.dispose()
