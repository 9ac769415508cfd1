"""Networks that learn in milliseconds. Imports torch."""

from collections import OrderedDict

import torch
from torch import nn

from tests.tiny import SPEC
from training.backbones.build import PretrainedBackbone

WIDTH = 6


def tiny_network(*, norms: bool = True, seed: int = 0) -> nn.Sequential:
    """Return a convolutional network of pictures of any size: its stages are stem, norm, body.first, ... and last."""
    torch.manual_seed(seed)

    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels) if norms else nn.GroupNorm(1, channels)

    body = OrderedDict(
        first=nn.Conv2d(4, 8, 3, padding=1), second=norm(8), bend=nn.ReLU(), third=nn.Conv2d(8, 8, 3, padding=1)
    )
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 4, 3, padding=1),
            norm=norm(4),
            body=nn.Sequential(body),
            last=nn.Conv2d(8, WIDTH, 1),
            last_norm=norm(WIDTH),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
        )
    )


def tiny_torch_backbone(*, norms: bool = True, seed: int = 0) -> PretrainedBackbone:
    """Return the tiny network as a backbone of 8 x 8 px pictures."""
    return PretrainedBackbone(tiny_network(norms=norms, seed=seed).eval(), SPEC, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def random_pictures(count: int, seed: int = 0, side_px: int = 8) -> torch.Tensor:
    """Return pictures uint8 [N, P, P, 3]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side_px, side_px, 3), dtype=torch.uint8, generator=generator)
