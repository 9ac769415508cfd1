"""A model store with one tiny champion, and a real server on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft.client import Client
from regraft.store import ModelStore
from tests.serving.live import LiveServer
from tests.tiny import publish_tiny


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """A store whose model ``colours`` has version 1 (red, green, blue) as champion."""
    store = ModelStore(tmp_path / "store")
    publish_tiny(store)
    return store


@pytest.fixture
def empty_store(tmp_path: Path) -> ModelStore:
    """A store without a model."""
    return ModelStore(tmp_path / "empty")


@pytest.fixture
def live(store: ModelStore) -> Iterator[LiveServer]:
    """A server on that store."""
    with LiveServer(store) as server:
        yield server


@pytest.fixture
def client(live: LiveServer) -> Client:
    """A client of that server."""
    return live.client
