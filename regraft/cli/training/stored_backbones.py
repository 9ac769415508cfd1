"""The commands ``regraft backbones add``, ``export``, ``import`` and ``remove``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from regraft.cli import terminal
from regraft.cli.backbone_table import SHORT_DIGEST, backbone_to_dict, show_backbones
from regraft.cli.json_output import print_result
from regraft.cli.options import Json, Store
from regraft.files import cache_folder
from regraft.stores.backbone_file import export_backbone, import_backbone
from regraft.stores.backbones import BackboneStore
from regraft.stores.models import ModelStore

Wanted = Annotated[str, typer.Argument(help="Its name, or the beginning of its digest.")]


def add(
    network: Annotated[
        str, typer.Argument(help="See `regraft backbones`; store:NAME[:VERSION] takes that of a version.")
    ],
    weights: Annotated[str, typer.Option(help="default, none, or the file of a state dict.")] = "default",
    precision: Annotated[
        Literal["fp32", "int8"], typer.Option(help="int8 is faster on most CPUs, and wants --data.")
    ] = "fp32",
    data: Annotated[
        Path | None, typer.Option(help="Pictures like those it is for, in a folder, to calibrate int8 with.")
    ] = None,
    image_px: Annotated[int | None, typer.Option(min=1, help="Side of the input; default: the network's own.")] = None,
    store: Store = Path("models"),
    as_json: Json = False,
) -> None:
    """Put a backbone into the store, for models to begin with.

    A network that was never exported on this machine needs torch for that.
    """
    from training.versions.kept_backbones import BackboneSettings, make_backbone  # noqa: PLC0415 - scikit-learn takes a second

    settings = BackboneSettings(network, weights, precision, data, image_px)
    with terminal.progress_bars() as progress:
        added = make_backbone(store, settings, cache_folder(), progress)
    print_result(backbone_to_dict(added), _show_one, as_json)


def export(
    backbone: Wanted,
    file: Annotated[Path, typer.Argument(help="A new .onnx file.")],
    store: Store = Path("models"),
    as_json: Json = False,
) -> None:
    """Write a backbone into one file, for another store.

    It is an ONNX file from picture to embedding, which other runtimes take as well.
    """
    exported = export_backbone(BackboneStore(store), backbone, file)
    print_result({**backbone_to_dict(exported), "file": str(file)}, _show_one, as_json)


def import_(
    file: Annotated[Path, typer.Argument(help="A file of `regraft backbones export`.")],
    store: Store = Path("models"),
    as_json: Json = False,
) -> None:
    """Bring a backbone from a file into the store, without torch.

    Its digest is checked, and it is tried in a process with little memory and time.
    """
    with terminal.progress_bars() as progress:
        progress("try", 0, 1)
        imported = import_backbone(BackboneStore(store), file)
        progress("try", 1, 1)
    print_result(backbone_to_dict(imported), _show_one, as_json)


def remove(backbone: Wanted, store: Store = Path("models"), as_json: Json = False) -> None:
    """Remove a backbone, unless a model without a champion began with it.

    Versions hold their own: they serve and retrain as before.
    """
    backbones = BackboneStore(store)
    removed = backbones.find(backbone)
    backbones.remove(removed, used_by=ModelStore(store).folders.waiting_for(removed.digest))
    print_result(backbone_to_dict(removed), lambda one: terminal.line(f"removed {one['name']}"), as_json)


def _show_one(entry: Mapping[str, Any]) -> None:
    show_backbones([entry])
    terminal.line(f"a model begins with it by its name, {entry['name']}, or by {entry['digest'][:SHORT_DIGEST]}")
    if file := entry.get("file"):
        terminal.line((file, "bold"))
