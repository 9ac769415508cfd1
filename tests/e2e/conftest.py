"""A real server in a process of its own, started by the real command."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from regraft.bench.steady_load import Load
from regraft.client.client import Client
from regraft.files import locked
from regraft.safe_path import module_command
from tests import REPOSITORY
from tests.e2e.recorder import Recorder, recorder
from tests.live_server import PLAN, background_load


class ServerProcess:
    """``regraft serve`` on free ports; a context manager that ends it, whatever happened."""

    def __init__(self, store: Path, *arguments: str, regraft: Sequence[str] = module_command("regraft.cli")) -> None:
        command = [*regraft, "serve", "--store", str(store), "--json"]
        ports = ["--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
        self.log = store.parent / "server.log"
        with self.log.open("a") as log:
            # A session of its own, so that a test can end the server alone or the server with its children.
            self.process = subprocess.Popen(
                [*command, *ports, "--plan", PLAN, *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.places: dict[str, str] = json.loads(line)

    def client(self) -> Client:
        return Client(self.places["grpc"], timeout_s=60)

    def kill(self, *, with_children: bool = False) -> None:
        """End it as a power cut would."""
        if with_children:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()

    def children(self) -> list[int]:
        """Return the processes that it started and that still live, such as that of a retrain job."""
        found: list[int] = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with suppress(OSError):  # this thread ended meanwhile
                found += map(int, (task / "children").read_text().split())
        return found

    def stop(self) -> int:
        """End it as an operator would, and return its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@contextmanager
def others_unharmed(target: str, *, pause_s: float = 0.0) -> Iterator[Load]:
    """Let a client classify throughout, and a little longer; not one request of it may fail.

    Without a pause between its requests it takes all that the server has, and a retrain, which steps back, waits long.
    """
    with background_load(target, clients=1, pause_s=pause_s) as load:
        load.wait_for(20)
        yield load
        load.wait_for(20)
    result = load.result()
    assert result.failed == 0, result.phases
    assert result.requests >= 40
    report(f"others: {result.requests} answers, {result.phases['before'].latency_ms}")


@pytest.fixture(scope="session")
def wheel(run_folder: Path) -> Path:
    """The wheel of this repository, built once for the whole run."""
    folder = run_folder / "wheel"
    with locked(run_folder / "wheel.lock", patience_s=300):
        if not folder.exists():
            # A copy: the build leaves its own folders beside the sources.
            source = run_folder / "source"
            for package in ("regraft", "serving", "training"):
                shutil.copytree(REPOSITORY / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
            for file in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(REPOSITORY / file, source)
            _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, run_folder: Path) -> Path:
    """``regraft`` in a fresh environment that has the wheel; what it depends on is that of the tests' environment."""
    folder = run_folder / "installed"
    with locked(run_folder / "installed.lock", patience_s=300):
        if not folder.exists():
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
            _pip("--python", str(folder), "install", "--no-deps", str(wheel))
            [packages] = folder.glob("lib/python3*/site-packages")
            (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "regraft"


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    elsewhere = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it finds Regraft there
    subprocess.run(command, env=elsewhere, check=True)


@pytest.fixture
def among_foreign_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory, and PYTHONPATH, have a ``serving`` and a ``training`` of somebody else."""
    for name in ("serving", "training"):
        (tmp_path / "foreign" / name).mkdir(parents=True)
        (tmp_path / "foreign" / name / "__init__.py").write_text(f"raise SystemExit('the {name} of somebody else')")
    monkeypatch.chdir(tmp_path / "foreign")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "foreign"))


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A recorder of every process that the test starts from its folder."""
    with recorder(tmp_path / "recorded") as found:
        environment = found.environment(os.environ)
        for name in os.environ.keys() - environment.keys():
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield found


def report(text: str) -> None:
    print(text)  # noqa: T201 - figures for whoever asks pytest for them
