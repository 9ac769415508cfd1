"""A real PostgreSQL, started by the tests in a folder of its own, for as long as any process of the run uses it."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine, text

from regraft.files import locked

_USER: Final = "postgres"
"""Whom Debian's package makes: PostgreSQL refuses to run as root."""

_SETTINGS: Final = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "200",
}


@dataclass(frozen=True)
class PostgreSQL:
    """One cluster, reached through a socket in its folder."""

    folder: Path

    @staticmethod
    @contextmanager
    def shared(run_folder: Path) -> Iterator["PostgreSQL"]:
        """Start the cluster, or join the one that another process of the run started; the last to go stops it."""
        register = run_folder / "postgresql.json"
        with locked(run_folder / "postgresql.lock"):
            state: dict[str, Any] = json.loads(register.read_text()) if register.exists() else {"users": 0}
            if not state["users"]:
                state["folder"] = str(_start())
            register.write_text(json.dumps({**state, "users": state["users"] + 1}))
        cluster = PostgreSQL(Path(state["folder"]))
        try:
            yield cluster
        finally:
            with locked(run_folder / "postgresql.lock"):
                users = json.loads(register.read_text())["users"] - 1
                register.write_text(json.dumps({**state, "users": users}))
                if not users:
                    cluster.stop()
                    shutil.rmtree(cluster.folder)

    def url(self, options: str = "") -> str:
        """Return the URL of the database, with options of the connection."""
        return f"postgresql+psycopg://{_USER}@/postgres?host={quote(str(self.folder))}{options}"

    def new_database(self) -> str:
        """Return the URL of a schema that is empty, which is to its user a database of its own."""
        name = f"test_{uuid.uuid4().hex}"
        engine = create_engine(self.url())
        with engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        engine.dispose()
        return self.url(f"&options=-csearch_path%3D{name}")

    def start(self) -> None:
        """Start it again after `stop`."""
        _pg_ctl(self.folder, "start", "-o", " ".join(f"-c {key}='{value}'" for key, value in _settings(self.folder)))

    def stop(self) -> None:
        """End it at once, as a failure would; connections break."""
        _pg_ctl(self.folder, "stop", "-m", "immediate")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Freeze all its processes until the block ends.

        It takes connections meanwhile, and says nothing on any.
        """
        main = int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        processes = [main, *map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())]
        _signal(processes, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(processes, signal.SIGCONT)


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # a connection's own, which ended meanwhile
            os.kill(process, number)


def _start() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="regraft-postgresql-"))  # short, as the path of a socket must be
    if os.getuid() == 0:
        shutil.chown(folder, _USER)
    _run("initdb", "-D", str(folder / "data"), "-U", _USER, "--auth", "trust", "--no-sync", "--encoding", "UTF8")
    PostgreSQL(folder).start()
    return folder


def _settings(folder: Path) -> list[tuple[str, str]]:
    return [*_SETTINGS.items(), ("unix_socket_directories", str(folder))]


def _pg_ctl(folder: Path, *arguments: str) -> None:
    _run("pg_ctl", "-D", str(folder / "data"), "-l", str(folder / "log"), "-w", *arguments)


def _run(program: str, *arguments: str) -> None:
    """Run a program of PostgreSQL as a user that may."""
    found = shutil.which(program) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{program}")), None)
    if found is None:
        pytest.skip(f"{program} is not there: install PostgreSQL (Debian: postgresql)")
    # Not by the user that `subprocess` can set: for that it forks, in the midst of whatever gRPC's threads are doing.
    whose = ["setpriv", "--reuid", _USER, "--regid", _USER, "--clear-groups"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*whose, found, *arguments], cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{program} ended with {done.returncode}: {done.stdout}"
