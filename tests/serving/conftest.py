"""A real server on a model store with one tiny champion."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from regraft.client.client import Client
from regraft.stores.models import ModelStore
from serving.threads import Threads
from tests.live_server import LiveServer
from tests.serving.certificates import Authority

AuditLines: TypeAlias = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def threads() -> Iterator[Threads]:
    """A server's threads, without a server."""
    threads = Threads()
    yield threads
    threads.close()


@pytest.fixture
def live(store: ModelStore) -> Iterator[LiveServer]:
    """A server on that store."""
    with LiveServer(store) as server:
        yield server


@pytest.fixture
def client(live: LiveServer) -> Client:
    """A client of that server."""
    return live.client


@pytest.fixture
def audit_lines(caplog: pytest.LogCaptureFixture) -> AuditLines:
    """A reader of the lines that the audit has written so far."""
    caplog.set_level(logging.INFO, "regraft.audit")
    return lambda: [json.loads(each.getMessage()) for each in caplog.records if each.name == "regraft.audit"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that issues certificates into files."""
    return Authority(tmp_path)


@pytest.fixture
def tls(authority: Authority) -> dict[str, Path]:
    """Settings of a server with TLS."""
    cert, key = authority.issue("server", "127.0.0.1")
    return {"tls_cert": cert, "tls_key": key}
