"""The command ``regraft look``: what there is to train on, before anything is trained."""

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_json
from regraft.cli.options import Json
from regraft.files import cache_folder


def look(
    data: Annotated[
        Path, typer.Argument(help="Labelled pictures: a folder or a list, as `regraft train` takes.", exists=True)
    ],
    group_by: Annotated[str, typer.Option(help="Pictures that stay together in the split; see `regraft train`.")] = "",
    backbone: Annotated[
        str, typer.Option(help="Finds near-duplicates too, by what this network sees; see `regraft backbones`.")
    ] = "",
    weights: Annotated[str, typer.Option(help="Of the backbone; see `regraft train`.")] = "default",
    sheet: Annotated[
        Path | None, typer.Option(help="Write a page there, with a contact sheet of each class.", dir_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at labelled pictures before anything is trained.

    Counts, sizes, formats, the split, duplicates, and which files are left out and why.
    Exit 1 where a training would refuse them.
    """
    from regraft.cli.training import show_look  # noqa: PLC0415 - numpy and Pillow, which other commands spare
    from training.backbones.cache import embedding_cache, load_backbone  # noqa: PLC0415 - likewise
    from training.look import look as run  # noqa: PLC0415 - likewise, scipy

    with terminal.progress_bars() as progress:
        if backbone:
            exported = load_backbone(backbone, weights, 0, cache_folder(), progress)
            with embedding_cache(cache_folder()) as cache:
                found = run(data, progress, group_by, exported, cache)
        else:
            found = run(data, progress, group_by)
    if as_json:
        print_json(found.to_dict())
    else:
        pictures = {label: [image.path for image in images] for label, images in found.sheet.items()}
        show_look.look(found.to_dict(), pictures)
    if sheet:
        from training.evaluation.report.look_page import page  # noqa: PLC0415 - as above

        terminal.write_page(sheet, page(found), "--sheet")
    if found.refused:
        raise typer.Exit(1)
