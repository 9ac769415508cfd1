"""Removal of a network's head. Imports torch."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from regraft.errors import InvalidRequestError
from training.backbones.weights import AUXILIARY, SourceClassifier, source_classifier


@dataclass(frozen=True)
class RemovedHead:
    """The head that was removed.

    Attributes:
        attributes: of the network, under which its heads were.
        width: D.
        source: the head, trained or not, where it has ImageNet's classes.
    """

    attributes: tuple[str, ...]
    width: int
    source: SourceClassifier | None


def remove_torchvision_head(network: nn.Module, name: str) -> RemovedHead:
    """Drop the last linear layer or 1 x 1 convolution, and auxiliary heads.

    Raises:
        InvalidRequestError: there is no such layer.
    """
    for part in AUXILIARY:
        if hasattr(network, part):
            setattr(network, part, None)
    if hasattr(network, "aux_logits"):
        setattr(network, "aux_logits", False)  # noqa: B010 - nn.Module declares attributes as tensors or modules
    layers = [
        (path, module)
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
    ]
    if not layers:
        raise InvalidRequestError(f"--backbone: {name!r} has no last linear layer that could be replaced")
    path, layer = layers[-1]
    parent, _, attribute = path.rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())
    width = layer.weight.shape[1]
    return RemovedHead((path.split(".")[0],), width, source_classifier(layer.weight, layer.bias, width))


def remove_timm_head(network: Any, name: str) -> RemovedHead:  # noqa: ANN401 - timm ships no type information
    """Let timm remove its classifier: one layer, or two if distilled.

    Raises:
        InvalidRequestError: timm knows of none.
    """
    if not hasattr(network, "get_classifier"):
        raise InvalidRequestError(f"--backbone: {name!r} is no classifier, and its embedding is not known")
    classifier = network.get_classifier()
    heads = classifier if isinstance(classifier, tuple | list) else (classifier,)
    paths = [path for path, module in network.named_modules() if any(module is head for head in heads)]
    # A network that timm keeps without a classifier may come from a file that has one.
    attributes = tuple(dict.fromkeys(path.split(".")[0] for path in paths)) or ("head", "fc", "classifier")
    layer = heads[0] if len(heads) == 1 else None
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    width = network.num_features if weight is None else weight.shape[1]
    network.reset_classifier(0)
    return RemovedHead(attributes, width, source_classifier(weight, bias, width))
