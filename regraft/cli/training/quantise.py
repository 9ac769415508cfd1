"""The command ``regraft models quantise``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_json
from regraft.cli.options import Examples, Json, Store
from regraft.files import cache_folder
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.models import ModelStore


def quantise(
    model: Annotated[str, typer.Argument(help="NAME:VERSION, or NAME for its champion.")],
    data: Annotated[Path, typer.Option(help="The folder of photos that the version was trained on.")],
    store: Store = Path("models"),
    examples: Examples = "",
    promote: Annotated[
        bool, typer.Option("--promote", help="Make it the champion, unless the gate objects: then exit 1.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Publish a version in int8, with the very same head.

    It is faster on most CPUs, calibrated on training images of the version, and compared with it on the holdout.
    """
    from training.quantisation.version import quantise_version  # noqa: PLC0415 - scikit-learn takes a second

    with terminal.progress_bars() as progress:
        result = quantise_version(
            ModelStore(store),
            model,
            data,
            examples=examples or str(store / EXAMPLES_FOLDER),
            cache=cache_folder(),
            promote=promote,
            progress=progress,
        ).to_dict()
    if as_json:
        print_json(result)
    else:
        _show(result, store)
    if promote and not result["promoted"]:
        raise typer.Exit(1)


def _show(result: Mapping[str, Any], store: Path) -> None:
    """Show what `training.quantisation.version.Quantised.to_dict` returns."""
    rows = terminal.table(f"{result['name']}, on {result['holdout_images']} holdout images", numbers=("fp32", "int8"))
    sides = (result["fp32"], result["int8"])
    rows.add_row("version", str(result["parent_version"]), str(result["version"]))
    rows.add_row("accuracy", *(_accuracy(side) for side in sides))
    rows.add_row("MB", *(f"{side['mb']:.1f}" for side in sides))
    rows.add_row("ms an image, one thread", *(f"{side['ms']:.2f}" for side in sides))
    rows.add_row("times as fast", "1.00", f"{result['speed_up']:.2f}")
    terminal.out.print(rows)
    if result["agreement"] is not None:
        terminal.line(f"both answer alike on {result['agreement']:.1%} of the holdout")
    for objection in result["objections"]:
        terminal.line(("the gate objects: ", "yellow"), objection)
    if result["promoted"]:
        terminal.line(f"version {result['version']} is the champion")
        return
    terminal.line(f"version {result['version']} is published, not promoted; where a server watches {store}:")
    terminal.line((f"regraft models promote {result['version']} --name {result['name']}", "bold"))


def _accuracy(side: Mapping[str, Any]) -> str:
    if side["accuracy"] is None:
        return "unknown"
    low, high = side["accuracy_interval"]
    return f"{side['accuracy']:.4f} ({low:.3f} to {high:.3f})"
