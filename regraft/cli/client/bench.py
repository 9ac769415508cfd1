"""The command ``regraft bench``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_result
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.connection import Connection
from regraft.datasets import labelled_files
from regraft.errors import RegraftError

_PERCENTILES: Final = {"p50": "p50", "p95": "p95", "p99": "p99", "p99_9": "p99.9", "max": "max"}
_TEXT_LENGTH: Final = 160
_INTERRUPTED: Final = 130
_ANY_LABEL: Final = "any"
_CLOSED: Final = "Closed loop: a client sends its next request as its last answer comes"
_OPEN: Final = "Open loop: requests fall due at a rate, whatever the server does"


@asks_a_server
def bench(
    server: Connection,
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them, sent in turn.")],
    name: Name = "",
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="So many clients; 8 if not given.", rich_help_panel=_CLOSED)
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second.", rich_help_panel=_OPEN)] = None,
    arrivals: Annotated[
        str, typer.Option(help="poisson: those of independent users. even: at equal distances.", rich_help_panel=_OPEN)
    ] = "poisson",
    seed: Annotated[int, typer.Option(min=0, help="Of the Poisson arrivals.", rich_help_panel=_OPEN)] = 0,
    duration: Annotated[float, typer.Option(help="Seconds that are measured.")] = 10.0,
    warm_up: Annotated[float, typer.Option(help="Seconds before that, which do not count.")] = 1.0,
    deadline_ms: Annotated[float, typer.Option(help="Of each request.")] = 30_000.0,
    as_json: Json = False,
) -> None:
    """Measure a server under load: throughput and latency.

    With --rate, latency counts from the time a request was due, so that a server that stalls is not flattered. Ctrl-C
    ends it early and prints what was measured so far. Exit code 1 if no request was answered.
    """
    from regraft.bench.generator import run_bench  # noqa: PLC0415 - NumPy takes a moment, which other commands spare
    from regraft.bench.settings import BenchSettings  # noqa: PLC0415 - likewise

    if rate is not None and concurrency is not None:
        raise typer.BadParameter("--rate and --concurrency are two kinds of load: say one", param_hint="--rate")
    settings = BenchSettings(
        tuple(file.read_bytes() for path in images for file, _ in labelled_files.find_in_folder(path, _ANY_LABEL)),
        server,
        name,
        concurrency=8 if concurrency is None else concurrency,
        rate=rate,
        arrivals=arrivals,  # type: ignore[arg-type]  # checked there
        duration_s=duration,
        warm_up_s=warm_up,
        deadline_ms=deadline_ms,
        seed=seed,
    )
    with terminal.progress_bars() as progress:
        result = run_bench(settings, progress)
    print_result(result.to_dict(), _show, as_json)
    if result.interrupted:
        raise typer.Exit(_INTERRUPTED)
    if not result.answered:
        raise RegraftError(f"no request was answered{_commonest(result.errors, result.error_texts)}")


def _commonest(errors: dict[str, int], texts: dict[str, str]) -> str:
    """Return the most frequent error, if there is one."""
    code = next(iter(errors), None)
    return "" if code is None else f"; {errors[code]} of them failed with {code}: {texts[code]}"


def _show(result: Mapping[str, Any]) -> None:
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
    """Show the latency at the client, and the server's stages."""
    rows = terminal.table("ms", numbers=("mean", *_PERCENTILES.values()))
    latency = result["latency_ms"]
    seen_from = "from the time it was due" if result["settings"]["rate"] else "at the client"
    rows.add_row(f"latency, {seen_from}", f"{latency['mean']:.2f}", *(f"{latency[key]:.2f}" for key in _PERCENTILES))
    for stage, mean_ms in result["stages_ms"].items():
        rows.add_row(f"in the server: {stage}", f"{mean_ms:.2f}")
    if result["settings"]["rate"]:
        rows.add_row("sent late by the client", "", "", "", f"{result['sent_late_p99_ms']:.2f}")
    terminal.out.print(rows)
