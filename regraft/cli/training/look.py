"""The command ``regraft look``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.text import Text

from regraft.cli import terminal
from regraft.cli.json_output import print_json
from regraft.cli.options import Json
from regraft.errors import InvalidImageError
from regraft.files import cache_folder

if TYPE_CHECKING:  # numpy and Pillow, which other commands spare
    from regraft.image.spec import Crop

_SIDE_PX: Final = 20
_PICTURES: Final = 5
_CLASSES: Final = 12
_PAIRS: Final = 8
_COLOURS: Final = ("256", "truecolor")


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
    from training.backbones.cache import embedding_cache, load_backbone  # noqa: PLC0415 - ONNX Runtime takes a moment
    from training.look import look as run  # noqa: PLC0415 - likewise, scipy

    with terminal.progress_bars() as progress:
        if backbone:
            exported = load_backbone(backbone, weights, 0, cache_folder(), progress)
            with embedding_cache(cache_folder()) as cache:
                survey = run(data, progress, group_by, exported, cache)
        else:
            survey = run(data, progress, group_by)
    if as_json:
        print_json(survey.to_dict())
    else:
        pictures = {label: [image.path for image in images] for label, images in survey.sheet.items()}
        _show(survey.to_dict(), pictures)
    if sheet:
        from training.look import page  # noqa: PLC0415 - as above

        terminal.write_page(sheet, page(survey), "--sheet")
    if survey.refused:
        raise typer.Exit(1)


def _show(survey: Mapping[str, Any], sheet: Mapping[str, Sequence[Path]]) -> None:
    """Show what `training.look.Look.to_dict` returns; ``sheet`` has pictures of each class."""
    terminal.left_out(survey["left_out"], "all are in --sheet and in --json")
    if terminal.out.is_terminal and terminal.out.color_system in _COLOURS:
        for label, files in list(sheet.items())[:_CLASSES]:
            terminal.line((label, "bold"))
            terminal.out.print(half_blocks(_row(files[:: max(1, len(files) // _PICTURES)][:_PICTURES])))
    rows = terminal.table("class", title=survey["data"], numbers=("training", "holdout", "left out"))
    for entry in survey["classes"]:
        rows.add_row(entry["label"], *(str(entry[key]) for key in ("train", "holdout", "left_out")))
    terminal.out.print(rows)
    formats = ", ".join(f"{kind} {count}" for kind, count in survey["formats"].items())
    terminal.line(f"{survey['images']} pictures: {formats}")
    for name, key in (("short side, px", "short_side_px"), ("long side, px", "long_side_px"), ("bytes", "bytes")):
        spread = survey[key]
        terminal.line(f"{name}: {spread['least']:,} to {spread['most']:,}, median {spread['median']:,}")
    terminal.line(f"split: {survey['split']}")
    terminal.line(f"exact duplicates: {survey['copies']}")
    if survey["near"]:
        _show_near(survey["near"])
    else:
        terminal.line(("near-duplicates, which a training keeps together, were not looked for: --backbone NAME", "dim"))
    for note in survey["notes"]:
        terminal.line((f"- {note}", "dim"))
    if survey["refused"]:
        terminal.line(("a training would refuse this: ", "red"), survey["refused"])


def half_blocks(pixels: "Crop") -> Text:
    """Draw pixels as lines of half blocks.

    Args:
        pixels: uint8 [2 H, W, 3].
    """
    text = Text()
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", f"rgb({','.join(map(str, above))}) on rgb({','.join(map(str, below))})")
        text.append("\n")
    return text


def _row(files: Sequence[Path]) -> "Crop":
    """Return small pictures side by side."""
    import numpy as np  # noqa: PLC0415 - as above

    from regraft.image.decode import decode_crop  # noqa: PLC0415 - as above
    from regraft.image.spec import ImageSpec  # noqa: PLC0415 - as above

    spec = ImageSpec("pad", _SIDE_PX, _SIDE_PX)
    pictures = []
    for file in files:
        try:
            pictures.append(decode_crop(file.read_bytes(), spec))
        except (InvalidImageError, OSError):  # gone meanwhile
            continue
    blank = np.zeros((_SIDE_PX, 0, 3), np.uint8)
    return np.concatenate([blank, *(np.pad(each, ((0, 0), (0, 1), (0, 0))) for each in pictures)], axis=1)


def _show_near(near: Mapping[str, Any]) -> None:
    terminal.line(
        f"near-duplicates to {near['backbone']}: {near['found']} pairs, {near['across']} of them across the split"
    )
    for pair in near["pairs"][:_PAIRS]:
        first, second = pair["first"], pair["second"]
        terminal.line((f"  {pair['cosine']:.3f}  {first['file']}  {second['file']}", "dim"))
