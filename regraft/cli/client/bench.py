"""The command that measures a server under load: ``regraft bench``."""

from pathlib import Path
from typing import Annotated, Final

import typer

from regraft.cli import terminal
from regraft.cli.client import show_bench
from regraft.cli.json_output import print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.connection import Connection
from regraft.datasets import labelled_files
from regraft.errors import RegraftError

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
    """Put a server under load: how many pictures a second does it answer, and how long do they wait?

    With --rate, latency counts from the time a request was due, so that a server that stalls is not flattered. Ctrl-C
    ends it early and prints what was measured so far. Exit code 1 if no request was answered.
    """
    from regraft.bench.generator import run_bench  # noqa: PLC0415 - NumPy takes a moment, which other commands spare
    from regraft.bench.settings import BenchSettings  # noqa: PLC0415 - likewise

    if rate is not None and concurrency is not None:
        raise typer.BadParameter("--rate and --concurrency are two kinds of load: say one", param_hint="--rate")
    settings = BenchSettings(
        tuple(file.read_bytes() for path in images for file, _ in labelled_files.find(path, _ANY_LABEL)),
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
    if as_json:
        print_json(result.to_dict())
    else:
        show_bench.bench(result.to_dict())
    if result.interrupted:
        raise typer.Exit(_INTERRUPTED)
    if not result.answered:
        raise RegraftError(f"no request was answered{_commonest(result.errors, result.error_texts)}")


def _commonest(errors: dict[str, int], texts: dict[str, str]) -> str:
    """Return what most requests failed with, if any was sent."""
    code = next(iter(errors), None)
    return "" if code is None else f"; {errors[code]} of them failed with {code}: {texts[code]}"
