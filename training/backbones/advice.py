"""Advice on networks, by their figures: a first one, and small ones. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from training.backbones.catalogue import DEFAULT_BACKBONE
from training.compare.results import pareto_front

BEGIN: Final = "to begin with"
SMALL: Final = "small device"

SMALL_MB: Final = 25.0
"""The most that the weights of a network for a small device may take; in int8 it is a quarter."""

_Entry = Mapping[str, Any]


def suits(entries: Sequence[_Entry]) -> list[tuple[str, ...]]:
    """Return what each network suits, see `training.backbones.listing.BackboneEntry`.

    To begin with: the default where its weights are at hand, or no others are; else the most accurate that are. For a
    small device: of those up to `SMALL_MB` and with a published accuracy, each that no other beats in accuracy and, as
    far as they were measured, in time, else in size.
    """
    first, small = _first(entries), {entry["name"] for entry in _small(entries)}
    return [
        (*((BEGIN,) if entry["name"] == first else ()), *((SMALL,) if entry["name"] in small else ()))
        for entry in entries
    ]


def _first(entries: Sequence[_Entry]) -> str:
    at_hand = [entry for entry in entries if entry["at_hand"]]
    if not at_hand or any(entry["name"] == DEFAULT_BACKBONE for entry in at_hand):
        return DEFAULT_BACKBONE
    return str(max(at_hand, key=lambda entry: entry["top1"] or 0.0)["name"])


def _small(entries: Sequence[_Entry]) -> list[_Entry]:
    known = [entry for entry in entries if entry["top1"] and entry["size_mb"] and entry["size_mb"] <= SMALL_MB]
    cost = "ms" if known and all(entry["ms"] for entry in known) else "size_mb"
    return [known[index] for index in pareto_front([(entry[cost], -entry["top1"]) for entry in known])]
