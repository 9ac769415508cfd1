"""The server over gRPC against what this machine can do without one, in one run.

``python -m benchmarks.serving STORE NAME [FLOAT_NAME]``, on a quiet machine. In turns, so that whatever else it does
slows all of them alike: the plain loop (Pillow's full decode and resize, batch 1, one thread, of ``FLOAT_NAME``); the
limit (our own decode and ``session.run`` in all lanes, no server); the server, at several concurrencies.

What needs no server is measured before and after each turn of the server, which uses next to nothing meanwhile; to stop
it would make the system take its memory away.

First the server has one CPU and the clients another. Then both have both, and the clients' own CPU time is taken off.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.in_process import SIZE
from benchmarks.preprocessing import photo
from benchmarks.server_process import ServerProcess, on_cpus
from regraft.bench import run_bench
from regraft.bench_settings import BenchSettings
from regraft.connection import Connection
from regraft.runtime import processor

ROUNDS = 5
WINDOW_S = 3.0
CONCURRENCIES = (1, 8, 32)


def main() -> None:
    """Print both tables."""
    store, name, *rest = sys.argv[1:]
    float_name = rest[0] if rest else name
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise SystemExit("this needs two CPUs: one for the server, one for its clients")
    Console().print(apart(Path(store), name, float_name, cpus))
    Console().print(together(Path(store), name, float_name, cpus[:2]))


def apart(store: Path, name: str, float_name: str, cpus: list[int]) -> Table:
    """Measure with the server on the first CPU, the clients on the second."""
    table = Table("", "pictures/s", "of the limit", "of the plain loop", "p50 ms", title=_title(name, "one CPU"))

    def served() -> dict[str, float]:
        figures = {}
        for concurrency in CONCURRENCIES:
            result = run_bench(_load(server, name, concurrency))
            figures[f"{concurrency}"] = result.goodput_per_s
            figures[f"{concurrency} ms"] = result.latency_ms.p50 if result.latency_ms else 0.0
        return figures

    with on_cpus({cpus[1]}), ServerProcess(store, {cpus[0]}, "--name", name.partition(":")[0]) as server:
        rounds = _rounds(lambda: in_process(store, name, float_name, {cpus[0]}), served)
    table.add_row("plain loop", *_shares(rounds, "plain"), "")
    table.add_row("limit, in process", *_shares(rounds, "limit"), f"{_median(rounds, 'alone_ms'):.2f}")
    for concurrency in CONCURRENCIES:
        key = str(concurrency)
        table.add_row(f"server, {key} at once", *_shares(rounds, key), f"{_median(rounds, key + ' ms'):.2f}")
    return table


def together(store: Path, name: str, float_name: str, cpus: list[int]) -> Table:
    """Measure with two CPUs for the server and its clients."""
    table = Table("", "pictures/s", "of what the clients leave", title=_title(name, "two CPUs for all"))

    def served() -> dict[str, float]:
        result = run_bench(_load(server, name, 32))
        return {"server": result.goodput_per_s, "left": (2 - result.client_cpu_share) / 2}

    with ServerProcess(store, cpus, "--name", name.partition(":")[0]) as server:
        rounds = _rounds(lambda: in_process(store, name, float_name, cpus), served)
    share = statistics.median(figures["server"] / (figures["limit"] * figures["left"]) for figures in rounds)
    table.add_row("limit, in process", f"{_median(rounds, 'limit'):.1f}", "")
    table.add_row("server, 32 at once", f"{_median(rounds, 'server'):.1f}", f"{share:.3f}")
    return table


def in_process(store: Path, name: str, float_name: str, cpus: Collection[int]) -> dict[str, float]:
    """Measure what goes without a server, on some CPUs."""
    command = [sys.executable, "-m", "benchmarks.in_process", str(store), name, float_name, str(WINDOW_S)]
    with on_cpus(cpus):
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _rounds(limit: Callable[[], dict[str, float]], served: Callable[[], dict[str, float]]) -> list[dict[str, float]]:
    """Measure both by turns; each round has the mean of the limits before and after the server's figures."""
    rounds, before = [], limit()
    for _ in range(ROUNDS):
        figures, after = served(), limit()
        rounds.append({key: (value + after[key]) / 2 for key, value in before.items()} | figures)
        before = after
    return rounds


def _load(server: ServerProcess, name: str, concurrency: int) -> BenchSettings:
    model = name.partition(":")[0]
    return BenchSettings(
        (photo(*SIZE),), Connection(server.target), model, concurrency=concurrency, duration_s=WINDOW_S, warm_up_s=1.0
    )


def _shares(rounds: list[dict[str, float]], key: str) -> tuple[str, str, str]:
    """Return the median, and the medians of the ratios within each round."""
    ratios = (statistics.median(figures[key] / figures[base] for figures in rounds) for base in ("limit", "plain"))
    return (f"{_median(rounds, key):.1f}", *(f"{ratio:.3f}" for ratio in ratios))  # type: ignore[return-value]  # two ratios


def _median(rounds: list[dict[str, float]], key: str) -> float:
    return statistics.median(figures[key] for figures in rounds)


def _title(name: str, where: str) -> str:
    return f"{name}, JPEG of {SIZE[0]} x {SIZE[1]}, {where} ({processor()}), median of {ROUNDS} rounds"


if __name__ == "__main__":
    main()
