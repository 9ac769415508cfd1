"""The command ``regraft backbones``, in full ``regraft backbones networks``."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from regraft.cli import terminal
from regraft.cli.json_output import print_result
from regraft.cli.options import Json
from regraft.errors import MissingPackageError
from regraft.files import cache_folder


def networks(
    pattern: Annotated[
        str, typer.Argument(help="Glob of names, in quotes, such as 'resnet*' or 'timm/mobilenetv4*'.")
    ] = "",
    measure: Annotated[
        bool, typer.Option("--measure", help="Also ms a picture on one thread here: seconds for each, minutes for all.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the networks to train on, with advice; its name may be left out.

    Without a pattern those that people ask for most.
    """
    try:
        from training.backbones.listing import list_backbones  # noqa: PLC0415 - torch takes seconds
    except ImportError as error:
        raise MissingPackageError(f"the networks come with torch: pip install 'regraft[train]' ({error})") from error

    with terminal.progress_bars() as progress:
        entries, more = list_backbones(pattern, cache_folder() if measure else None, progress)
    print_result(entries, _show, as_json)
    if more:
        terminal.remark(f"and {more} more: narrow the pattern")


def _show(entries: Sequence[Mapping[str, Any]]) -> None:
    """Show what `training.backbones.listing.list_backbones` returns."""
    terminal.out.print(table(entries))
    for advice in advice_of(entries):
        terminal.line(advice)
    terminal.line(
        "px: side of the picture that the network sees; D: size of its embedding; top-1: accuracy on ImageNet, as"
    )
    terminal.line(
        "torchvision measured it for the weights of that name, or as the README says; M params: with that classifier"
    )


def table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table, which fits 120 columns."""
    measured = any(entry["ms"] for entry in entries)
    rows = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    rows.add_column("backbone", no_wrap=True)
    for column in ("M params", "MB", *(("ms here",) if measured else ()), "px", "D", "top-1 %"):
        rows.add_column(column, justify="right", no_wrap=True)
    rows.add_column("according to")
    rows.add_column("weights", width=33, overflow="fold")  # the name of a package in one piece
    for entry in entries:
        rows.add_row(
            entry["name"],
            _number(entry["parameters"], 1e-6, 1),
            _number(entry["size_mb"]),
            *((_number(entry["ms"], digits=1),) if measured else ()),
            str(entry["image_px"]),
            _number(entry["embedding_size"]),
            _number(entry["top1"], digits=1),
            entry["top1_source"].removeprefix("torchvision "),
            entry["weights"],
        )
    return rows


def advice_of(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return lines of advice: a beginning, a small device, weights at hand."""
    at_hand = [entry["name"] for entry in entries if entry["at_hand"]]
    begin, small = ([e["name"] for e in entries if what in e["suits"]] for what in ("to begin with", "small device"))
    by = "as quick here" if any(entry["ms"] for entry in entries) else "as small"
    return [
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("where to begin", begin),
            (f"for a small device, nothing {by} being more accurate", small),
            ("weights at hand, without a download", at_hand),
        )
        if names
    ]


def _number(value: float | None, factor: float = 1.0, digits: int = 0) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"
