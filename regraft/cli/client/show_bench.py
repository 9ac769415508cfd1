"""A load test on the terminal. Machines get JSON instead, from `regraft.cli.client.bench`."""

from collections.abc import Mapping
from typing import Any, Final

from regraft.cli import terminal

_PERCENTILES: Final = {"p50": "p50", "p95": "p95", "p99": "p99", "p99_9": "p99.9", "max": "max"}
_TEXT_LENGTH: Final = 160


def bench(result: Mapping[str, Any]) -> None:
    """Show what `regraft.bench.result.BenchResult.to_dict` returns."""
    _counts(result)
    if result["latency_ms"]:
        _latencies(result)
        versions = ", ".join(f"v{version}: {count}" for version, count in result["versions"].items())
        terminal.line(f"answered by {versions}")
    for code, count in result["errors"].items():
        terminal.line((f"{count} {code}", "red"), f": {result['error_texts'][code][:_TEXT_LENGTH]}")
    if result["interrupted"]:
        terminal.line(
            ("interrupted", "yellow"), f": this is what was measured so far; {result['abandoned']} requests given up"
        )
    for warning in result["warnings"]:
        terminal.line(("warning: ", "yellow"), warning)


def _counts(result: Mapping[str, Any]) -> None:
    numbers = ("requests", "answered", "failed", "answers/s", "client CPU")
    rows = terminal.table("load", title=result["settings"]["target"], numbers=numbers)
    failed = sum(result["errors"].values())
    rows.add_row(
        _load(result["settings"], result["seconds"]),
        str(result["requests"]),
        str(result["answered"]),
        str(failed),
        f"{result['goodput_per_s']:.1f}",
        f"{result['client_cpu_share']:.2f}",
    )
    terminal.out.print(rows)


def _load(settings: Mapping[str, Any], seconds: float) -> str:
    pictures = f"{settings['images']} picture{'s' if settings['images'] > 1 else ''}, {seconds:.1f} s"
    if settings["rate"]:
        return f"open loop, {settings['rate']:g} requests/s, {settings['arrivals']}, {pictures}"
    return f"closed loop, {settings['concurrency']} client{'s' if settings['concurrency'] > 1 else ''}, {pictures}"


def _latencies(result: Mapping[str, Any]) -> None:
    """Show what clients waited, and below it what the server says of its part."""
    rows = terminal.table("ms", numbers=("mean", *_PERCENTILES.values()))
    latency = result["latency_ms"]
    seen_from = "from the time it was due" if result["settings"]["rate"] else "at the client"
    rows.add_row(f"latency, {seen_from}", f"{latency['mean']:.2f}", *(f"{latency[key]:.2f}" for key in _PERCENTILES))
    for stage, mean_ms in result["stages_ms"].items():
        rows.add_row(f"in the server: {stage}", f"{mean_ms:.2f}")
    if result["settings"]["rate"]:
        rows.add_row("sent late by the client", "", "", "", f"{result['sent_late_p99_ms']:.2f}")
    terminal.out.print(rows)
