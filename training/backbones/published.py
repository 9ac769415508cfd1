"""Published facts about weights: accuracy, source, licence. Imports torch."""

from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any, Final

import timm
import torchvision

from regraft.stores.backbones import UNPUBLISHED, PublishedWeights
from training.backbones.catalogue import EMBEDDED_WEIGHTS, TIMM_PREFIX, resolve_weights, weights_package

LITE_TOP1: Final = {"efficientnet_lite0": 75.1, "efficientnet_lite1": 76.7, "efficientnet_lite2": 77.6}
LITE_SOURCE: Final = "EfficientNet-Lite README"  # in the repository tensorflow/tpu
_HUB: Final = "https://huggingface.co/"


def published_weights(name: str, weights: str) -> PublishedWeights:
    """Return what is published about a network's weights.

    Args:
        name: see `training.backbones.build`.
        weights: likewise; of a file nothing is published but its name.
    """
    weights = resolve_weights(name, weights)
    if weights != "default":
        return PublishedWeights(source=Path(weights).name) if weights != "none" else UNPUBLISHED
    if name in EMBEDDED_WEIGHTS:
        # timm has the same weights, and says the licence of their publisher, which the package does not.
        return PublishedWeights(
            source=_home_of(weights_package(name)),
            licence=_config(f"tf_{name}").license or "",
            imagenet_top1=_share(LITE_TOP1[name]),
            imagenet_top1_source=LITE_SOURCE,
        )
    return _of_timm(name.removeprefix(TIMM_PREFIX)) if name.startswith(TIMM_PREFIX) else _of_torchvision(name)


def torchvision_top1(entry: Any) -> float:  # noqa: ANN401 - torchvision declares no types
    """Return the ImageNet accuracy in percent that torchvision measured."""
    return float(entry.meta["_metrics"]["ImageNet-1K"]["acc@1"])


def _of_timm(known_as: str) -> PublishedWeights:
    config = _config(known_as)
    hub = f"{_HUB}{config.hf_hub_id}" if config.hf_hub_id else ""
    return PublishedWeights(source=hub or config.url or "", licence=config.license or "")


def _config(known_as: str) -> Any:  # noqa: ANN401 - timm's own type has every field optional
    return timm.get_pretrained_cfg(known_as)


def _of_torchvision(name: str) -> PublishedWeights:
    entry = torchvision.models.get_model_weights(name).DEFAULT
    return PublishedWeights(
        source=entry.url,
        licence=f"{metadata('torchvision')['License']} (torchvision; the terms of ImageNet may apply)",
        imagenet_top1=_share(torchvision_top1(entry)),
        imagenet_top1_source=f"torchvision {entry.name}",
    )


def _share(percent: float) -> float:
    return round(percent / 100, 6)


def _home_of(package: str) -> str:
    try:
        return metadata(package)["Home-page"] or f"https://pypi.org/project/{package}"
    except (PackageNotFoundError, KeyError):
        return package
