"""Throughput of several backbones in one server, together and alone.

``python -m benchmarks.backbones STORE NAME NAME ... [--plan 2x1x1]``, on a quiet machine. Rounds take turns, each model
alone and then all at once, so that all meet the same disturbances. Where they share the CPUs well, their shares of what
they do alone sum up to 1, and a picture waits at most so many times longer as there are models.
"""

import argparse
import asyncio
import os
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.preprocessing import photo
from benchmarks.server_process import ServerProcess
from regraft.bench.generator import bench
from regraft.bench.result import BenchResult
from regraft.bench.settings import BenchSettings
from regraft.client.connection import Connection

ROUNDS: Final = 7
WINDOW_S: Final = 3.0
CLIENTS: Final = 8
"""Of each model."""


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backbones", description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--plan", default="")
    options = parser.parse_args()
    flags = [f"--name={name}" for name in options.names] + (["--plan", options.plan] if options.plan else [])
    alone, together = defaultdict[str, list[BenchResult]](list), defaultdict[str, list[BenchResult]](list)
    with ServerProcess(options.store, os.sched_getaffinity(0), *flags) as server:
        for _ in range(ROUNDS):
            for name in options.names:
                alone[name] += asyncio.run(asked(server.target, [name]))
            for name, result in zip(options.names, asyncio.run(asked(server.target, options.names)), strict=True):
                together[name].append(result)
    Console().print(report(alone, together))


async def asked(target: str, names: Sequence[str]) -> list[BenchResult]:
    """Put some models under load at the same time."""
    settings = [
        BenchSettings(
            (photo(500, 375),), Connection(target), name, concurrency=CLIENTS, duration_s=WINDOW_S, warm_up_s=0.5
        )
        for name in names
    ]
    return await asyncio.gather(*map(bench, settings))


def report(alone: dict[str, list[BenchResult]], together: dict[str, list[BenchResult]]) -> Table:
    """Return a table of medians over the rounds, with the sum of shares."""
    table = Table("model", "alone, pictures/s", "p99, ms", "together, pictures/s", "p99, ms", "share")
    shares = []
    for name, results in together.items():
        before, after = rate(alone[name]), rate(results)
        shares.append(after / before)
        cells = (f"{before:.1f}", f"{p99_ms(alone[name]):.0f}", f"{after:.1f}", f"{p99_ms(results):.0f}")
        table.add_row(name, *cells, f"{shares[-1]:.2f}")
    table.add_row("all", "", "", "", "", f"{sum(shares):.2f}")
    return table


def rate(results: Sequence[BenchResult]) -> float:
    """Return the median pictures a second."""
    return statistics.median(result.goodput_per_s for result in results)


def p99_ms(results: Sequence[BenchResult]) -> float:
    """Return the median of the rounds' 99th percentiles."""
    return statistics.median(result.latency_ms.p99 for result in results if result.latency_ms)


if __name__ == "__main__":
    main()
