"""What a process asks of the network: hosts that it looks up, addresses that it connects to, requests to a proxy."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.proxy import RecordingProxy

SOURCE = Path(__file__).parent / "connections.cpp"
SWITCHES = ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI")
"""What would keep libraries quiet by itself."""


@dataclass(frozen=True)
class Recorder:
    """A home of its own for processes, behind a proxy, with every connection recorded."""

    folder: Path
    proxy: RecordingProxy

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a process that shall be recorded."""
        quiet = {name: value for name, value in base.items() if name not in SWITCHES and "PYTEST" not in name}
        own = {
            "HOME": str(self.folder / "home"),
            "MPLCONFIGDIR": str(self.folder),
            "LD_PRELOAD": str(self.folder / "connections.so"),
            "CONNECTIONS": str(self.folder / "connections"),
        }
        return {**quiet, **self.proxy.environment, **own}

    def asked(self) -> list[str]:
        """Return everything that was asked for outside this machine."""
        connections = self.folder / "connections"
        return [*self.proxy.requests, *(connections.read_text().splitlines() if connections.exists() else [])]

    def left_at_home(self) -> list[str]:
        """Return what was written into the home folder."""
        return [str(path.relative_to(self.folder)) for path in (self.folder / "home").rglob("*") if path.is_file()]


@contextmanager
def recorder(folder: Path) -> Iterator[Recorder]:
    """Keep what is recorded in a folder; the library that records is compiled there."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    (folder / "home").mkdir(parents=True)
    flags = ["-shared", "-fPIC", "-Wall", "-Werror"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(folder / "connections.so"), "-ldl"], check=True)
    with RecordingProxy() as proxy:
        yield Recorder(folder, proxy)
