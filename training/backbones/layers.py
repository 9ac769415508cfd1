"""Layers of networks without their numbers. Imports torch.

They are built at once, whatever the size of the network.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from regraft.errors import InvalidRequestError
from training.backbones.build import build_backbone


class WithoutNumbers(TorchFunctionMode):
    """Lets layers have shapes but no numbers.

    ``torch.device("meta")`` would do so to every tensor, but some networks compute their widths while they are built.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - any function of torch
        """Make whatever has numbers yet to come on the device that has none."""
        del types
        return func(*args, **{**(kwargs or {}), **({"device": "meta"} if func is torch.empty else {})})


def layers_of(name: str) -> nn.Module:
    """Return the layers of a backbone, without its head and mostly without numbers.

    Raises:
        InvalidRequestError: there is no such network.
    """
    try:
        with WithoutNumbers():
            return build_backbone(name, "none", seed=0).network
    except InvalidRequestError:  # no such network, or one of the few that need numbers while they are built
        return build_backbone(name, "none", seed=0).network
