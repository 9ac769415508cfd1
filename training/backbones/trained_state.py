"""Trained weights kept beside a version, to fine-tune from. Imports torch.

A safetensors file. The model file has the same numbers, but folded into a graph that only computes.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from regraft.errors import ArtifactError, first_line
from regraft.model.artifact import Artifact
from training.backbones.build import PretrainedBackbone, build_backbone
from training.backbones.input_size import take_image_px
from training.backbones.weights import SourceClassifier

MOST_BYTES: Final = 512 << 20
"""Larger ones are not kept; a ResNet-152 takes less than half of it, a ViT-L/16 1.2 GB."""
_FACTS: Final = "regraft"
_TRANSFORM_INPUT: Final = "transform_input"


def keep_state(backbone: PretrainedBackbone, name: str) -> tuple[bytes | None, str]:
    """Serialise a trained network's weights, with a note.

    Args:
        backbone: after training.
        name: of the network, see `training.backbones.build`.

    Returns:
        The file, None where it would be larger than `MOST_BYTES`; and the note.
    """
    tensors = backbone.network.state_dict()
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > MOST_BYTES:
        return None, (
            f"The trained weights were not kept to go on from: {size / 1e6:.0f} MB, and {MOST_BYTES / 1e6:.0f} MB at "
            "most are kept."
        )
    facts = {
        "backbone": name,
        "mean": backbone.mean,
        "std": backbone.std,
        _TRANSFORM_INPUT: bool(getattr(backbone.network, _TRANSFORM_INPUT, False)),
    }
    apart = {
        key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()
    }  # it takes no shared ones
    state = save(apart, {_FACTS: json.dumps(facts, sort_keys=True)})
    return state, (
        f"The trained weights are kept beside the version to go on from, {len(state) / 1e6:.1f} MB; nothing serves "
        "them, and --no-keep-state keeps none."
    )


def restore(path: Path, version: Artifact) -> PretrainedBackbone:
    """Rebuild the network of a file of `keep_state`.

    Args:
        path: the file.
        version: whose weights it has, also how its pictures are prepared; its head is the classifier that the network
            comes from.

    Raises:
        ArtifactError: the file does not fit the network.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()[_FACTS])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
        backbone = build_backbone(facts["backbone"], "none", seed=0)
        spec, network = version.card.image, backbone.network
        if spec.crop_px != backbone.spec.crop_px:
            take_image_px(network, spec.crop_px)
        if hasattr(network, _TRANSFORM_INPUT):
            setattr(network, _TRANSFORM_INPUT, facts[_TRANSFORM_INPUT])
        network.load_state_dict(state)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{path}: not the weights of a network that this machine has: {first_line(error)}"
        ) from error
    head = version.head
    source = SourceClassifier(torch.from_numpy(head.weight), torch.from_numpy(head.bias), version.card.labels)
    red, green, blue = facts["mean"]
    mean = (red, green, blue)
    red, green, blue = facts["std"]
    return replace(backbone, spec=spec, mean=mean, std=(red, green, blue), source=source, notes=())
