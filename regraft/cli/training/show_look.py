"""Tables and small pictures of ``regraft look`` in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.text import Text

from regraft.cli import terminal
from regraft.errors import InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.spec import Crop, ImageSpec

_SIDE_PX: Final = 20
_PICTURES: Final = 5
_CLASSES: Final = 12
_PAIRS: Final = 8
_COLOURS: Final = ("256", "truecolor")
_TINY: Final = ImageSpec("pad", _SIDE_PX, _SIDE_PX)


def look(found: Mapping[str, Any], sheet: Mapping[str, Sequence[Path]]) -> None:
    """Show what `training.look.Look.to_dict` returns; ``sheet`` has pictures of each class."""
    terminal.left_out(found["left_out"], "all are in --sheet and in --json")
    if terminal.out.is_terminal and terminal.out.color_system in _COLOURS:
        for label, files in list(sheet.items())[:_CLASSES]:
            terminal.line((label, "bold"))
            terminal.out.print(half_blocks(_row(files[:: max(1, len(files) // _PICTURES)][:_PICTURES])))
    rows = terminal.table("class", title=found["data"], numbers=("training", "holdout", "left out"))
    for entry in found["classes"]:
        rows.add_row(entry["label"], *(str(entry[key]) for key in ("train", "holdout", "left_out")))
    terminal.out.print(rows)
    formats = ", ".join(f"{kind} {count}" for kind, count in found["formats"].items())
    terminal.line(f"{found['images']} pictures: {formats}")
    for name, key in (("short side, px", "short_side_px"), ("long side, px", "long_side_px"), ("bytes", "bytes")):
        spread = found[key]
        terminal.line(f"{name}: {spread['least']:,} to {spread['most']:,}, median {spread['median']:,}")
    terminal.line(f"split: {found['split']}")
    terminal.line(f"exact duplicates: {found['copies']}")
    if found["near"]:
        _near(found["near"])
    else:
        terminal.line(("near-duplicates, which a training keeps together, were not looked for: --backbone NAME", "dim"))
    for note in found["notes"]:
        terminal.line((f"- {note}", "dim"))
    if found["refused"]:
        terminal.line(("a training would refuse this: ", "red"), found["refused"])


def half_blocks(pixels: Crop) -> Text:
    """Draw pixels, uint8 [2 H, W, 3], as H lines of half blocks."""
    text = Text()
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", f"rgb({','.join(map(str, above))}) on rgb({','.join(map(str, below))})")
        text.append("\n")
    return text


def _row(files: Sequence[Path]) -> Crop:
    """Return small pictures beside each other."""
    pictures = []
    for file in files:
        try:
            pictures.append(decode_crop(file.read_bytes(), _TINY))
        except (InvalidImageError, OSError):  # gone meanwhile
            continue
    blank = np.zeros((_SIDE_PX, 0, 3), np.uint8)
    return np.concatenate([blank, *(np.pad(each, ((0, 0), (0, 1), (0, 0))) for each in pictures)], axis=1)


def _near(near: Mapping[str, Any]) -> None:
    terminal.line(
        f"near-duplicates to {near['backbone']}: {near['found']} pairs, {near['across']} of them across the split"
    )
    for pair in near["pairs"][:_PAIRS]:
        first, second = pair["first"], pair["second"]
        terminal.line((f"  {pair['cosine']:.3f}  {first['file']}  {second['file']}", "dim"))
