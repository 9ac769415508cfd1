"""Rules that hold for the whole suite."""

from tests import REPOSITORY

from tests import environment  # isort: skip - before what reads the environment as it is imported

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from regraft.files import cache_folder
from regraft.stores.examples import ExamplesStore, open_examples
from regraft.stores.models import ModelStore
from tests.grpc_loop import grpc_loop
from tests.live_server import LiveServer
from tests.postgresql import PostgreSQL
from tests.tiny import publish_tiny

# How long an example takes says something of the machine alone. The rest is as Hypothesis has it, in CI and elsewhere.
settings.register_profile("regraft", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("regraft")


def pytest_sessionfinish(exitstatus: int) -> None:
    """Leave nothing behind where all went well."""
    if left := environment.move_out(failed=exitstatus != 0):
        sys.stderr.write(f"\n{left}\n")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the slow end-to-end tests to the workers first, so that none is left alone with one at the end."""
    items.sort(key=lambda item: 0 if "/e2e/" in str(item.path) or "/real_data/" in str(item.path) else 1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where REGRAFT_FORBID_SKIPS is set, as it is in CI."""
    report = yield
    if report.skipped and os.environ.get("REGRAFT_FORBID_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which REGRAFT_FORBID_SKIPS does not allow: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder of real labelled photographs."""
    folder = Path(os.environ.get("REGRAFT_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no photographs in {folder}: set REGRAFT_TEST_DATA to the folder that has them")
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that begins empty with every run, and that the processes of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    """A cache of exported backbones, and of execution plans, for the whole run."""
    return cache_folder()


@pytest.fixture(scope="session")
def postgresql(run_folder: Path) -> Iterator[PostgreSQL]:
    """A real PostgreSQL, one for the whole run."""
    with PostgreSQL.shared(run_folder) as cluster:
        yield cluster


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
def examples(store: ModelStore) -> Iterator[ExamplesStore]:
    """The examples of ``store``, where a server of it looks."""
    with closing(open_examples(store.root)) as examples:
        yield examples


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/database.sqlite"
    cluster: PostgreSQL = request.getfixturevalue("postgresql")
    return cluster.new_database()


@pytest.fixture
def examples_store(tmp_path: Path, database: str) -> Iterator[ExamplesStore]:
    """An empty store, its pictures in ``tmp_path / "examples"``."""
    with closing(ExamplesStore(tmp_path / "examples", database)) as examples:
        yield examples


@pytest.fixture(scope="session", autouse=True)
def grpc_loop_ends_with_the_tests() -> Iterator[None]:
    """Close the loop that all servers of this process run on, if one ever started."""
    yield
    if grpc_loop.cache_info().currsize:
        grpc_loop().close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with model ``colours`` (red, green, blue), for all tests that only ask, and change nothing."""
    store = ModelStore(tmp_path_factory.mktemp("shared") / "store")
    publish_tiny(store)
    with LiveServer(store, http="127.0.0.1:0") as server:
        yield server
