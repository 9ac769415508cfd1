from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.tiny import picture, publish_tiny


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveServer]:
    store = ModelStore(tmp_path / "store")
    publish_tiny(store)
    with LiveServer(store, keep_requests=1.0) as live:
        yield live


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two grey pictures and a red one."""
    for label, number in (("grey", 1), ("grey", 2), ("red", 50)):
        file = tmp_path / "photos" / label / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(label, number))
    return tmp_path / "photos"
