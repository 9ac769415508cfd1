"""Input sizes of networks with fixed positions, such as ViT. Imports torch."""

import warnings
from typing import Any

import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from regraft.errors import InvalidRequestError, first_line


def take_image_px(network: nn.Module, image_px: int) -> torch.Tensor:
    """Make a network take another input size; return two blank embeddings.

    Where its positions are learned they are interpolated, in timm by its ``set_input_size``, in torchvision as its own
    recipe for fine-tuning does.

    Raises:
        InvalidRequestError: it cannot take them; the text says why.
    """
    try:
        return _embed_blank(network, image_px)
    except Exception as error:  # noqa: BLE001 - whatever the network's own code raises
        refusal = first_line(error)
    patch_px = _patch_px(network)
    if patch_px and image_px % patch_px:
        below, above = image_px // patch_px * patch_px, (image_px // patch_px + 1) * patch_px
        sizes = f"{below} or {above}" if below else str(above)
        raise InvalidRequestError(f"its patches have {patch_px} px: take {sizes}")
    try:
        if isinstance(network, VisionTransformer):
            _resize_torchvision(network, image_px)
        elif hasattr(network, "set_input_size"):
            timms: Any = network
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch finds its way of interpolating biases slow
                timms.set_input_size(img_size=(image_px, image_px))
        else:
            raise InvalidRequestError(refusal)
        return _embed_blank(network, image_px)
    except InvalidRequestError:
        raise
    except Exception as error:
        raise InvalidRequestError(first_line(error)) from error


def _embed_blank(network: nn.Module, image_px: int) -> torch.Tensor:
    with torch.no_grad():  # not inference mode: what the network caches must be of use to the exporter
        embedding: torch.Tensor = network(torch.zeros(2, 3, image_px, image_px))
    return embedding.flatten(1)


def _patch_px(network: nn.Module) -> int:
    """Return the side of a network's patches, 0 without patches."""
    parts = (getattr(network, "patch_size", 0), getattr(getattr(network, "patch_embed", None), "patch_size", 0))
    sides = [side[0] if isinstance(side, tuple) else side for side in parts]
    return next((side for side in sides if isinstance(side, int) and side), 0)


def _resize_torchvision(network: VisionTransformer, image_px: int) -> None:
    state = interpolate_embeddings(image_px, network.patch_size, network.state_dict())
    positions = state["encoder.pos_embedding"]
    network.encoder.pos_embedding = nn.Parameter(positions)
    network.image_size, network.seq_length = image_px, positions.shape[1]
