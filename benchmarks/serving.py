"""The server over gRPC against what this machine can do without one, in one run.

``python -m benchmarks.serving STORE NAME [FLOAT_NAME]``, on a quiet machine. Measured are the plain loop (Pillow's full
decode and resize, batch 1, one thread, of ``FLOAT_NAME``); the limit (our own decode and ``session.run`` in all lanes,
no server); the server, at several concurrencies, over gRPC and with raw pictures over HTTP, which is also told as a
share of gRPC's rate right before and right after it.

Every figure has the limit measured right before and right after it, and what is printed is the median of many such
ratios: windows of two seconds, since a machine that others share changes its speed by half within a minute.

First the server has one CPU and the clients another. Then both have both, and the clients' own CPU time is taken off.
"""

import os
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.http_load import rate_over_http
from benchmarks.in_process import SIZE, WINDOW_S, in_process
from benchmarks.preprocessing import photo
from benchmarks.server_process import ServerProcess, on_cpus
from regraft.bench.generator import run_bench
from regraft.bench.result import BenchResult
from regraft.bench.settings import BenchSettings
from regraft.client.connection import Connection
from regraft.machine import processor

ROUNDS: Final = 15
CONCURRENCIES: Final = (1, 8, 32)
OVER_HTTP: Final = (8, 32)


@dataclass(frozen=True)
class Figures:
    """What one thing measured, round after round, and its share of the limit next to it."""

    rates: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    added_ms: list[float] = field(default_factory=list)

    def row(self, plain: "Figures") -> tuple[str, str, str, str]:
        """Return the medians as cells of a table."""
        added_ms = f"{statistics.median(self.added_ms):+.2f}" if self.added_ms else ""
        return f"{statistics.median(self.rates):.1f}", f"{self.share:.3f}", f"{self.share / plain.share:.3f}", added_ms

    @property
    def share(self) -> float:
        """The median share."""
        return statistics.median(self.shares)


@dataclass(frozen=True)
class Arena:
    """A server, the process that shows what goes without one, and how to put the server under load."""

    server: ServerProcess
    measure: Callable[[str], float]
    name: str

    def served(self, concurrency: int) -> BenchResult:
        """Let so many clients ask at once for one window."""
        connection = Connection(self.server.target)
        pictures = (photo(*SIZE),)
        settings = BenchSettings(
            pictures, connection, self.name, concurrency=concurrency, duration_s=WINDOW_S, warm_up_s=0.3
        )
        return run_bench(settings)

    def served_over_http(self, concurrency: int) -> float:
        """Return the rate of so many clients over HTTP, for one window."""
        path = f"/v1/models/{self.name}/classify"
        return rate_over_http(self.server.http_port, path, photo(*SIZE), concurrency, WINDOW_S, warm_up_s=0.3)

    def beside_limit(self, figures: Figures, measure: Callable[[], tuple[float, float]]) -> None:
        """Measure a rate and how much of the machine was left for it, between two measurements of the limit."""
        before = self.measure("limit")
        rate, left = measure()
        limit = (before + self.measure("limit")) / 2
        figures.rates.append(rate)
        figures.shares.append(rate / (limit * left))


def main() -> None:
    """Print both tables."""
    store, name, *rest = sys.argv[1:]
    float_name = rest[0] if rest else name
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise SystemExit("this needs two CPUs: one for the server, one for its clients")
    with arena(Path(store), name, float_name, cpus[:1]) as subject, on_cpus({cpus[1]}):
        Console().print(apart(subject))
    with arena(Path(store), name, float_name, cpus[:2]) as subject:
        Console().print(together(subject))


@contextmanager
def arena(store: Path, name: str, float_name: str, cpus: list[int]) -> Iterator[Arena]:
    """Start a server and its rival on the same CPUs."""
    model = name.partition(":")[0]
    http = ("--http", "127.0.0.1:0")
    with (
        ServerProcess(store, cpus, "--name", model, *http) as server,
        in_process(store, name, float_name, cpus) as measure,
    ):
        yield Arena(server, measure, model)


def apart(subject: Arena) -> Table:
    """Measure with the server on the first CPU, the clients on the second."""
    plain, served = Figures(), {concurrency: Figures() for concurrency in CONCURRENCIES}
    http: dict[int, list[float]] = {concurrency: [] for concurrency in OVER_HTTP}
    for _ in range(ROUNDS):
        subject.beside_limit(plain, lambda: (subject.measure("plain"), 1.0))
        for concurrency, figures in served.items():
            subject.beside_limit(figures, lambda at_once=concurrency: (subject.served(at_once).goodput_per_s, 1.0))  # type: ignore[misc]  # mypy cannot infer defaults
        for concurrency, shares in http.items():
            before = subject.served(concurrency).goodput_per_s
            rate = subject.served_over_http(concurrency)
            shares.append(2 * rate / (before + subject.served(concurrency).goodput_per_s))
        before_ms = subject.measure("alone")
        latency_ms = subject.served(1).latency_ms
        after_ms = subject.measure("alone")
        served[1].added_ms.append((latency_ms.p50 if latency_ms else 0.0) - (before_ms + after_ms) / 2)
    table = Table(
        "", "pictures/s", "of the limit", "of the plain loop", "p50, ms more", title=_title(subject, "one CPU")
    )
    table.add_row("plain loop", *plain.row(plain))
    table.add_row("limit, in process", "", "1.000", f"{1 / plain.share:.3f}", "")
    for concurrency, figures in served.items():
        table.add_row(f"server, {concurrency} at once", *figures.row(plain))
    for concurrency, shares in http.items():
        table.add_row(f"HTTP, {concurrency} at once", f"{statistics.median(shares):.3f} of gRPC's", "", "", "")
    return table


def together(subject: Arena) -> Table:
    """Measure with two CPUs for the server and its clients."""
    figures = Figures()

    def served() -> tuple[float, float]:
        result = subject.served(32)
        return result.goodput_per_s, (2 - result.client_cpu_share) / 2

    for _ in range(ROUNDS):
        subject.beside_limit(figures, served)
    table = Table("", "pictures/s", "of what the clients leave", title=_title(subject, "two CPUs for all"))
    table.add_row("server, 32 at once", f"{statistics.median(figures.rates):.1f}", f"{figures.share:.3f}")
    return table


def _title(subject: Arena, where: str) -> str:
    what = f"{subject.name}, JPEG of {SIZE[0]} x {SIZE[1]}, {where}"
    return f"{what} ({processor()}), medians of {ROUNDS} rounds"


if __name__ == "__main__":
    main()
