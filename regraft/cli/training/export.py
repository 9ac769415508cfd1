"""The command ``regraft export``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_result
from regraft.cli.options import Examples, Json, Store
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.models import ModelStore


def export(
    model: Annotated[str, typer.Argument(help="NAME:VERSION, or NAME for its champion.")],
    to: Annotated[str, typer.Option(help="onnx, fp16, int8, ort, mobile, triton or openvino; see docs/export.md.")],
    out: Annotated[Path, typer.Option(help="A new folder for it.")],
    data: Annotated[
        Path | None, typer.Option(help="The folder of photos that the version was trained and validated on.")
    ] = None,
    cpu: Annotated[
        str | None, typer.Option(help="What int8 is for: x86-vnni, x86 or arm. Default: this machine.")
    ] = None,
    max_drop: Annotated[
        float, typer.Option(help="Points of validation accuracy that may be lost; over it nothing is written.")
    ] = 1.3,
    store: Store = Path("models"),
    examples: Examples = "",
    as_json: Json = False,
) -> None:
    """Write a version as a file for somewhere else.

    For a phone, a board, a browser or another server. The file is asked beside the served version, to prove that it
    still classifies.
    """
    from training.export.export import export_version  # noqa: PLC0415 - scikit-learn takes a second

    with terminal.progress_bars() as progress:
        result = export_version(
            ModelStore(store),
            model,
            to,
            out,
            data=data,
            examples=examples or str(store / EXAMPLES_FOLDER),
            cpu=cpu,
            max_drop=max_drop,
            progress=progress,
        ).to_dict()
    print_result(result, _show, as_json)


def _show(result: Mapping[str, Any]) -> None:
    """Show what `training.export.result.Export.to_dict` returns."""
    proof = result["proof"]
    sides = (proof["served"], proof["exported"])
    title = f"{result['name']}:{result['version']} to {result['format']}, on {proof['images']} validation images"
    rows = terminal.table(title, numbers=("served", "exported"))
    rows.add_row("accuracy", *(f"{side['accuracy']:.4f}" for side in sides))
    rows.add_row("95 % interval", *("{:.3f} to {:.3f}".format(*side["accuracy_interval"]) for side in sides))
    rows.add_row("calibration error", *(f"{side['calibration_error']:.4f}" for side in sides))
    rows.add_row("log loss", *(f"{side['log_loss']:.4f}" for side in sides))
    rows.add_row("MB", *(f"{side['mb']:.2f}" for side in sides))
    if result["times_as_fast"] is not None:
        rows.add_row("ms an image, one thread", *(f"{side['ms']:.2f}" for side in sides))
        rows.add_row("times as fast", "1.00", f"{result['times_as_fast']:.2f}")
    terminal.out.print(rows)
    furthest = f"probabilities differ by at most {proof['largest_difference']:.2g}"
    terminal.line(f"the same first label on {proof['agreement']:.1%}; {furthest}")
    if result["layers_in_float"]:
        terminal.line(f"left in float: {', '.join(result['layers_in_float'])}")
    for note in result["notes"]:
        terminal.line((f"- {note}", "dim"))
    terminal.line((result["model"], "bold"))
    terminal.line(f"how to use it: {result['folder']}/README.md")
