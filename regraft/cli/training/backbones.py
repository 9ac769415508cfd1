"""The table of networks on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from regraft.cli.terminal import line, out


def backbones(entries: Sequence[Mapping[str, Any]]) -> None:
    """Show what `training.backbones.listing.list_backbones` returns."""
    out.print(rows(entries))
    for advice in advice_of(entries):
        line(advice)
    line("px: side of the picture that the network sees; D: size of its embedding; top-1: accuracy on ImageNet, as")
    line("torchvision measured it for the weights of that name, or as the README says; M params: with that classifier")


def rows(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table, which fits 120 columns."""
    measured = any(entry["ms"] for entry in entries)
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    made.add_column("backbone", no_wrap=True)
    for column in ("M params", "MB", *(("ms here",) if measured else ()), "px", "D", "top-1 %"):
        made.add_column(column, justify="right", no_wrap=True)
    made.add_column("according to")
    made.add_column("weights", width=33, overflow="fold")  # the name of a package in one piece
    for entry in entries:
        made.add_row(
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
    return made


def advice_of(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return lines of advice on choosing a backbone.

    One each on where to begin, on a small device and on weights at hand, where there are any.
    """
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
