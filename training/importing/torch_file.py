"""Import of torchvision and timm classifiers. Imports torch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from regraft.errors import InvalidRequestError
from regraft.model.artifact import FloatArray, backbone_digest
from training.backbones.build import PretrainedBackbone, build_backbone, build_classifier, build_with_head
from training.backbones.cache import ExportedBackbone, weights_origin
from training.backbones.input_size import take_image_px
from training.backbones.onnx_export import Normalised, export_backbone
from training.backbones.trained_state import keep_state
from training.backbones.weights import AUXILIARY, State, imagenet_labels
from training.importing.classifier import ImageRule, ImportedClassifier, labels_for, origin_of

_BATCH: Final = 8


def import_torch(path: Path, name: str, rule: ImageRule, labels: tuple[str, ...], *, keep: bool) -> ImportedClassifier:
    """Read a classifier from the file of a state dict.

    Args:
        path: of the file, see `training.backbones.weights.read_state`.
        name: of the network, see `training.backbones.build`.
        rule: of the pictures.
        labels: of its answers; none for ImageNet's, where there are 1,000.
        keep: whether the weights are kept to go on from.

    Raises:
        InvalidRequestError: no state dict, another network's, or one whose head is not one linear layer.
        ArtifactError: the export failed its check against torch.
    """
    try:
        backbone, head = build_with_head(name, path, rule.image_px)
    except InvalidRequestError as error:
        raise InvalidRequestError(str(error).removeprefix("--weights: ")) from error
    weight, bias = _linear(head, path, name)
    origin = origin_of(path)
    of_imagenet = imagenet_labels() if len(weight) == len(imagenet_labels()) else ()
    named = labels_for(labels, len(weight), path.name, of_imagenet)
    return _imported(backbone, (weight, bias), named, name, (origin, path.name), rule, keep=keep)


def import_source(name: str, weights: str, rule: ImageRule, labels: tuple[str, ...]) -> ImportedClassifier:
    """Take the ImageNet classifier that a network was pretrained with.

    Raises:
        InvalidRequestError: no such network or weights, or they come without such a classifier.
        MissingPackageError: the weights' package is not installed.
        ArtifactError: the export failed its check against torch.
    """
    origin = weights_origin(name, weights, seed=0)
    backbone = build_backbone(name, weights, 0, rule.image_px)
    source = backbone.source
    if source is None or weights == "none":
        raise InvalidRequestError(
            f"--head source: the weights of {name} ({origin}) come without a classifier of ImageNet's 1,000 categories"
        )
    named = labels_for(labels, len(source.labels), name, source.labels)
    return _imported(backbone, (source.weight, source.bias), named, name, (origin, name), rule, keep=False)


def _imported(
    backbone: PretrainedBackbone,
    head: tuple[torch.Tensor, torch.Tensor],
    labels: tuple[str, ...],
    name: str,
    origin: tuple[str, str],
    rule: ImageRule,
    *,
    keep: bool,
) -> ImportedClassifier:
    spec, mean, std = rule.applied(backbone.spec, backbone.mean, backbone.std)
    backbone = replace(backbone, spec=spec, mean=mean, std=std)
    whole = _whole(name, backbone, head)
    model = export_backbone(backbone)
    state, note = keep_state(backbone, name) if keep else (None, "")
    exported = ExportedBackbone(
        model, name, origin[0], spec, backbone_digest(model), (*backbone.notes, *([note] if note else [])), state=state
    )
    weight, bias = (np.ascontiguousarray(part.numpy(), np.float32) for part in head)

    def answers(crops: npt.NDArray[np.uint8]) -> FloatArray:
        with torch.inference_mode():
            parts = [whole(torch.from_numpy(crops[start : start + _BATCH])) for start in range(0, len(crops), _BATCH)]
        return np.asarray(torch.cat(parts).numpy(), np.float32)

    return ImportedClassifier(exported, weight, bias, labels, "logits", answers, origin[1])


def _linear(head: State, path: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight [K, D] and bias [K] of a linear head.

    Raises:
        InvalidRequestError: it is not.
    """
    matrices = [key for key, tensor in head.items() if tensor.ndim >= 2]
    otherwise = f"`regraft train --backbone {name} --weights {path.name}` trains a head on its backbone"
    if not matrices:
        raise InvalidRequestError(f"{path}: has no head, so it is no classifier: {otherwise}")
    weight_key = matrices[0]
    bias_key = f"{weight_key.removesuffix('weight')}bias"
    if head.keys() - {weight_key, bias_key}:
        layers = ", ".join(repr(key) for key in head)
        raise InvalidRequestError(f"{path}: its head is more than one linear layer ({layers}): {otherwise}")
    weight = head[weight_key].detach().to(torch.float32).flatten(1)
    bias = head.get(bias_key, torch.zeros(len(weight))).detach().to(torch.float32)
    return weight, bias


def _whole(name: str, backbone: PretrainedBackbone, head: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
    """Build the whole network as its own library does, to compare with.

    Raises:
        InvalidRequestError: the head does not fit the network.
    """
    weight, bias = head
    network, bare = build_classifier(name, len(weight)), backbone.network.state_dict()
    network.eval()
    take_image_px(network, backbone.spec.crop_px)
    last = {key: tensor for key, tensor in network.state_dict().items() if _is_head(key, bare)}
    weights = [key for key, tensor in last.items() if tensor.ndim >= 2]
    if len(weights) != 1 or last[weights[0]].numel() != weight.numel():
        width = last[weights[0]].shape[1] if weights else 0
        raise InvalidRequestError(f"{name}: its last layer takes {width} numbers, the head {weight.shape[1]}")
    numbers = {key: (weight if key == weights[0] else bias).reshape(tensor.shape) for key, tensor in last.items()}
    network.load_state_dict({**bare, **numbers}, strict=False)
    return Normalised(replace(backbone, network=network)).eval()


def _is_head(key: str, bare: Mapping[str, torch.Tensor]) -> bool:
    return key not in bare and key.split(".", maxsplit=1)[0] not in AUXILIARY
