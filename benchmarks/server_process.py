"""``regraft serve`` in a process of its own, on given CPUs, for the benchmarks."""

import json
import os
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.memory import MB, forget_peak, peak_bytes, resident_bytes
from regraft.safe_path import module_command


@contextmanager
def on_cpus(cpus: Collection[int]) -> Iterator[None]:
    """Let this process, all threads of it, and those that it starts run on some CPUs only, until the block ends."""
    before = os.sched_getaffinity(0)
    _bind(cpus)
    try:
        yield
    finally:
        _bind(before)


def _bind(cpus: Collection[int]) -> None:
    """Bind every thread: gRPC's own, which earlier calls left behind, would go on where they were."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cpus)


def serve_command(store: Path, *arguments: str) -> list[str]:
    """Return a server's command: free ports, told in a line of JSON."""
    command = [*module_command("regraft.cli"), "serve", "--store", str(store), "--json", "--provider", "cpu"]
    return [*command, "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0", *arguments]


class ServerProcess:
    """A running server; a context manager that ends it."""

    def __init__(
        self, store: Path, cpus: Collection[int], *arguments: str, under: Sequence[str] = (), log: Path | None = None
    ) -> None:
        """Start it and wait until it is ready, which took ``ready_s``.

        Args:
            store: the models.
            cpus: that it may run on.
            arguments: of ``regraft serve``.
            under: a command that runs the server's as its own process, such as strace's with -D.
            log: where its standard error goes; nowhere if not given.
        """
        began_s = time.perf_counter()
        command = [*under, *serve_command(store, *arguments)]
        with on_cpus(cpus), (log or Path(os.devnull)).open("ab") as errors:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        assert self._process.stdout is not None
        places = json.loads(self._process.stdout.readline())
        self.pid = self._process.pid
        self.target: str = places["grpc"]
        self.metrics: str = places["metrics"]
        self.http_port = int(places.get("http", ":0").rpartition(":")[2])
        self.ready_s = time.perf_counter() - began_s

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def stop(self, within_s: float) -> int | None:
        """End it by SIGTERM, and return its exit code.

        Where that takes longer than ``within_s``, it is killed, and there is none.
        """
        self._process.terminate()
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        """End it as a power cut would; what it started goes on."""
        self._process.kill()
        self._process.wait()

    def resident_mb(self) -> float:
        """Return the megabytes that it has in memory."""
        return resident_bytes(self._process.pid) / MB

    def peak_mb(self) -> float:
        """Return the most megabytes that it had in memory since `forget_peak`."""
        return peak_bytes(self._process.pid) / MB

    def forget_peak(self) -> None:
        """Let the peak begin anew."""
        forget_peak(self._process.pid)

    def cpu_s(self) -> float:
        """Return the CPU seconds that it has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
