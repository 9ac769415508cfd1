"""A real server in a process of its own, started by the real command."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from regraft.bench.steady_load import Load
from regraft.client.client import Client
from tests.e2e.recorder import Recorder, recorder
from tests.serving.live import PLAN, background_load


class ServerProcess:
    """``regraft serve`` on free ports; a context manager that ends it, whatever happened."""

    def __init__(self, store: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "regraft.cli", "serve", "--store", str(store), "--json"]
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
