"""Backbones on the terminal, of a store or a server."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from regraft.cli import terminal
from regraft.cli.json_output import message_to_dict
from regraft.client.backbone_message import backbone_message
from regraft.stores.backbones import ADVICE, StoredBackbone

SHORT_DIGEST: Final = 12


def backbone_to_dict(backbone: StoredBackbone) -> dict[str, Any]:
    """Return a stored backbone with the fields of ListBackbones."""
    return message_to_dict(backbone_message(backbone))


def show_backbones(entries: Sequence[Mapping[str, Any]]) -> None:
    """Show backbones, one a line; those that could be added below."""
    here, addable = ([each for each in entries if each["is_here"] == is_here] for is_here in (True, False))
    if here:
        terminal.out.print(_table(here))
    else:
        terminal.line(f"no backbones yet: {ADVICE}")
    if addable:
        names = ", ".join(each["name"] for each in addable)
        terminal.line(
            f"could be added by `regraft backbones add NAME`; `regraft backbones` tells more of them: {names}"
        )


def _table(entries: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ANN401 - a table of rich, which only the terminal knows
    rows = terminal.table(
        "backbone", "digest", "precision", "weights", "licence", numbers=("MB", "px", "D", "top-1 %", "ms here")
    )
    for each in entries:
        top1, ms = each.get("imagenet_top1"), each.get("picture_ms")
        rows.add_row(
            each["name"],
            each["digest"][:SHORT_DIGEST],
            each["precision"],
            each["weights"],
            each["licence"] or "unknown",
            f"{each['size_bytes'] / 1e6:.1f}",
            str(each["input_px"]),
            str(each["embedding_size"]),
            "-" if top1 is None else f"{100 * top1:.1f}",
            "-" if ms is None else f"{ms:.1f}",
        )
    return rows
