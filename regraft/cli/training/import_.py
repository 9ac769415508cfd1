"""The command ``regraft import``."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_result
from regraft.cli.options import Database, Json, KeepPictures, RunExamples, Store
from regraft.cli.training.train import show_result
from regraft.stores.models import GateMode

_RULE: Final = "How its pictures are prepared (default: as its network's usually are)"
_CHANNELS: Final = 3


def import_(
    name: Annotated[str, typer.Option(help="Name of the model.")],
    file: Annotated[
        Path | None,
        typer.Argument(help="A state dict (.pth, .pt, .safetensors), or an .onnx file.", show_default=False),
    ] = None,
    store: Store = Path("models"),
    backbone: Annotated[str, typer.Option(help="The network that it is, see `regraft backbones`.")] = "",
    labels: Annotated[
        str, typer.Option(help="A file with a label a line, or a,b,c: in the order of its answers.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled pictures, as for `regraft train`: to prove and measure it by, and to retrain on."),
    ] = None,
    head: Annotated[
        str, typer.Option(help="source: without a FILE, the ImageNet classifier of the network's own weights.")
    ] = "",
    weights: Annotated[str, typer.Option(help="Of --head source: default, or the file of a state dict.")] = "default",
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Fit the temperature on DATA, which it must not have learned from.")
    ] = False,
    keep_state: Annotated[
        bool, typer.Option(help="Keep the weights of a state dict beside the version, to fine-tune from.")
    ] = True,
    mean: Annotated[
        str,
        typer.Option(help="Of the channels, of values in 0 to 1: 0.485,0.456,0.406, or one.", rich_help_panel=_RULE),
    ] = "",
    std: Annotated[str, typer.Option(help="Likewise.", rich_help_panel=_RULE)] = "",
    image_px: Annotated[
        int | None, typer.Option(min=1, help="Side of the crop that it takes.", rich_help_panel=_RULE)
    ] = None,
    resize: Annotated[str | None, typer.Option(help="crop, squash or pad.", rich_help_panel=_RULE)] = None,
    resize_px: Annotated[
        int | None, typer.Option(min=1, help="Side before the crop is cut from the middle.", rich_help_panel=_RULE)
    ] = None,
    interpolation: Annotated[
        str | None, typer.Option(help="bilinear, bicubic or lanczos.", rich_help_panel=_RULE)
    ] = None,
    gate: Annotated[GateMode, typer.Option(help="As in `regraft train`.")] = GateMode.AUTO,
    examples: RunExamples = "",
    database: Database = "",
    keep_pictures: KeepPictures = True,
    as_json: Json = False,
) -> None:
    """Import a finished classifier, to be served, retrained and exported.

    It is published only if it answers as it did by itself, on DATA or on generated pictures. Exit 1 where the gate
    refused.
    """
    from training.importing.classifier import ImageRule  # noqa: PLC0415 - likewise
    from training.importing.import_version import ImportSettings, import_version, read_labels  # noqa: PLC0415 - as in `train`
    from training.versions.pictures import ExamplesPlace  # noqa: PLC0415 - likewise

    if (file is None) != (head == "source") or head not in ("", "source"):
        raise typer.BadParameter("give either a FILE, or --head source with --backbone", param_hint="FILE")
    settings = ImportSettings(
        file,
        name,
        store,
        backbone,
        weights,
        read_labels(labels),
        data,
        calibrate,
        ImageRule(_channels(mean, "--mean"), _channels(std, "--std"), image_px, resize, resize_px, interpolation),
        keep_state,
    )
    with terminal.training() as listener:
        place = ExamplesPlace(store, examples, database)
        result = import_version(settings, listener, gate=gate, examples=place, keep=keep_pictures).to_dict()
    print_result(result, show_result, as_json)
    if result["verdict"] and not (result["promoted"] or result["verdict"]["blessed"]):
        raise typer.Exit(1)


def _channels(text: str, flag: str) -> Any:  # noqa: ANN401 - three numbers
    """Return a number for each channel, None where nothing is said."""
    if not text:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, _CHANNELS):
        raise typer.BadParameter(f"{text!r}: need three numbers such as 0.485,0.456,0.406, or one", param_hint=flag)
    return numbers * (_CHANNELS // len(numbers))
