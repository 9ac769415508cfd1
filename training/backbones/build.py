"""Pretrained networks without their head. Imports torch.

A name of torchvision is taken as it is, ``timm/<name>`` comes from timm, ``efficientnet_lite0`` to ``2`` have their
weights in a package. The head is found in the network, not looked up by family.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import timm
import torch
import torchvision
from timm.data.config import resolve_data_config
from torch import nn
from torch.overrides import TorchFunctionMode

from regraft.errors import InvalidRequestError, first_line
from regraft.image.spec import ImageSpec
from training.backbones.catalogue import (
    EMBEDDED_WEIGHTS,
    SLOW_TO_INITIALISE,
    STORE_PREFIX,
    TIMM_PREFIX,
    resolve_weights,
    weights_file_name,
)
from training.backbones.input_size import take_image_px
from training.backbones.remove_head import RemovedHead, remove_timm_head, remove_torchvision_head
from training.backbones.weights import (
    SourceClassifier,
    State,
    embedded_state,
    load_file,
    load_in_order,
    load_without_head,
)

_KERNELS: Final = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos"}
_RESIZE_RULES: Final = {"center": "crop", "squash": "squash", "border": "pad"}
_MAX_PX: Final = 4096


@dataclass(frozen=True)
class PretrainedBackbone:
    """A network that ends in its embedding, with its preprocessing.

    Attributes:
        network: float32 [N, 3, P, P], normalised, to an embedding [N, D]; in eval mode.
        spec: resize, crop and interpolation that the weights were made for.
        mean: per channel, of values in 0 to 1.
        std: likewise.
        source: the ImageNet classifier that was taken off; None with random weights, or where the weights have none.
        notes: sentences on what was left out of the weights' file.
    """

    network: nn.Module
    spec: ImageSpec
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: SourceClassifier | None = None
    notes: tuple[str, ...] = ()


def build_backbone(name: str, weights: str, seed: int, image_px: int | None = None) -> PretrainedBackbone:
    """Build a backbone.

    Args:
        name: see the module.
        weights: ``default`` (the folder ``REGRAFT_WEIGHTS``, the embedded package, or the library's own download),
            ``none`` (random), or the path of a state dict, which is loaded with ``weights_only``.
        seed: of the random weights.
        image_px: side of the crop that the network shall see; its own if None.

    Raises:
        InvalidRequestError: no such network, weights that do not fit it, or a crop that it cannot take; the text says
            which.
        MissingPackageError: the weights' package is not installed.
    """
    torch.manual_seed(seed)
    weights = resolve_weights(name, weights)
    embedded = name in EMBEDDED_WEIGHTS
    backbone, cut = _built(name, weights)
    if weights == "default":
        source = load_in_order(backbone.network, embedded_state(name)) if embedded else cut.source
        backbone = replace(backbone, source=source)
    elif weights != "none":
        source, notes = load_file(backbone.network, Path(weights), name, cut.attributes, cut.width)
        backbone = replace(backbone, source=source, notes=notes)
    backbone.network.eval()
    return backbone if image_px is None else _with_image_px(backbone, name, image_px)


def build_with_head(name: str, path: Path, image_px: int | None = None) -> tuple[PretrainedBackbone, State]:
    """Build a network from a state dict; return its head beside.

    Arguments and errors are those of `build_backbone`.
    """
    backbone, cut = _built(name, str(path))
    head = load_without_head(backbone.network, path, name, cut.attributes)
    backbone.network.eval()
    return (backbone if image_px is None else _with_image_px(backbone, name, image_px)), head


def build_classifier(name: str, classes: int) -> nn.Module:
    """Build a whole network of random weights, as its library does."""
    if name in EMBEDDED_WEIGHTS or name.startswith(TIMM_PREFIX):
        network: nn.Module = timm.create_model(_name_in_timm(name), num_classes=classes)
        return network
    options = {"init_weights": False, "transform_input": True} if name in SLOW_TO_INITIALISE else {}
    whole: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    return whole


class ShapesOnly(TorchFunctionMode):
    """Mode in which new layers have shapes but no numbers.

    ``torch.device("meta")`` would do so to every tensor, but some networks compute their widths while they are built.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - any function of torch
        """Create uninitialised tensors on the device without memory."""
        del types
        return func(*args, **{**(kwargs or {}), **({"device": "meta"} if func is torch.empty else {})})


def build_layers(name: str) -> nn.Module:
    """Build a backbone's layers, mostly without numbers, at once.

    Raises:
        InvalidRequestError: there is no such network.
    """
    try:
        with ShapesOnly():
            return build_backbone(name, "none", seed=0).network
    except InvalidRequestError:  # no such network, or one of the few that need numbers while they are built
        return build_backbone(name, "none", seed=0).network


def _built(name: str, weights: str) -> tuple[PretrainedBackbone, RemovedHead]:
    """Build a network without its head; a file is loaded later."""
    embedded = name in EMBEDDED_WEIGHTS
    if embedded or name.startswith(TIMM_PREFIX):
        return _from_timm(_name_in_timm(name), pretrained=weights == "default" and not embedded)
    return _from_torchvision(name, weights)


def _name_in_timm(name: str) -> str:
    return f"tf_{name}" if name in EMBEDDED_WEIGHTS else name.removeprefix(TIMM_PREFIX)


def _with_image_px(backbone: PretrainedBackbone, name: str, image_px: int) -> PretrainedBackbone:
    """Set another crop size, the resize in proportion, and try it."""
    old = backbone.spec
    resize_px = round(image_px * old.resize_px / old.crop_px)
    if image_px < 1 or resize_px > _MAX_PX:
        largest = _MAX_PX * old.crop_px // old.resize_px
        raise InvalidRequestError(f"--image-px: {image_px} is not between 1 and {largest}; {name} has {old.crop_px}")
    try:
        embedding = take_image_px(backbone.network, image_px)
    except InvalidRequestError as error:
        raise InvalidRequestError(
            f"--image-px: {name} cannot take pictures of {image_px} px, its own are {old.crop_px} px: {error}"
        ) from error
    if len(embedding) != 2 or not embedding.shape[1]:
        raise InvalidRequestError(f"--image-px: {name} makes no embedding of pictures of {image_px} px")
    return replace(backbone, spec=replace(old, crop_px=image_px, resize_px=resize_px))


def _from_timm(name: str, *, pretrained: bool) -> tuple[PretrainedBackbone, RemovedHead]:
    if not timm.is_model(name):
        raise InvalidRequestError(f"--backbone: timm has no network {name!r}; timm.list_models() lists them")
    with _weights_to_be_had(f"timm/{name}"):
        network: Any = timm.create_model(name, pretrained=pretrained)
    cut = remove_timm_head(network, f"{TIMM_PREFIX}{name}")
    config = resolve_data_config(model=network)
    crop_px = config["input_size"][-1]
    spec = ImageSpec(
        resize=_RESIZE_RULES[config["crop_mode"]],  # type: ignore[arg-type]  # the table holds only valid rules
        resize_px=max(crop_px, round(crop_px / config["crop_pct"])),
        crop_px=crop_px,
        interpolation=_KERNELS.get(config["interpolation"], "bicubic"),  # type: ignore[arg-type]  # likewise
    )
    return PretrainedBackbone(network, spec, tuple(config["mean"]), tuple(config["std"])), cut


def _from_torchvision(name: str, weights: str) -> tuple[PretrainedBackbone, RemovedHead]:
    models = torchvision.models
    if name not in models.list_models(module=models):
        raise InvalidRequestError(
            f"--backbone: no network {name!r}; use a classifier of torchvision (such as resnet18), "
            f"timm/<name>, or one of {', '.join(EMBEDDED_WEIGHTS)}; `regraft backbones` lists them. "
            f"{STORE_PREFIX}NAME goes on from a version"
        )
    entries = list(models.get_model_weights(name))
    # A file of weights most likely has the classic recipe, which is the first that torchvision published.
    entry = models.get_model_weights(name).DEFAULT if weights == "default" else entries[0]
    # Their slow initialisers are for random weights only; others would be overwritten by the file anyway.
    options = {"init_weights": weights == "none"} if name in SLOW_TO_INITIALISE else {}
    with _weights_to_be_had(name):
        network = models.get_model(name, weights=entry if weights == "default" else None, **options)
    if hasattr(network, "transform_input"):
        network.transform_input = weights != "none"  # torchvision's own weights of these two expect it
    cut = remove_torchvision_head(network, name)
    recipe = entry.transforms()
    spec = ImageSpec(
        resize_px=max(recipe.crop_size[0], recipe.resize_size[0]),
        crop_px=recipe.crop_size[0],
        interpolation=_KERNELS.get(recipe.interpolation.value, "bilinear"),  # type: ignore[arg-type]  # likewise
    )
    return PretrainedBackbone(network, spec, tuple(recipe.mean), tuple(recipe.std)), cut


@contextmanager
def _weights_to_be_had(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise InvalidRequestError(
            f"--weights default: those of {name} cannot be had: {first_line(error)}. Without the network give "
            f"--weights the file of a state dict, or put it as {weights_file_name(name)} into the folder that "
            "REGRAFT_WEIGHTS names"
        ) from error
