"""Stages of a network: frozen ones and learning rates. Imports torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from regraft.errors import InvalidRequestError

_DOMINANT: Final = 0.6
_BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Stage:
    """A part of a network; ``name`` is its path in it."""

    name: str
    module: nn.Module


def stages(network: nn.Module) -> tuple[Stage, ...]:
    """Return a network's stages, from the picture to the embedding.

    They are its children that have parameters. A child that is a mere container (a sequence right below the top, or
    whatever holds most of the parameters) gives way to its own children.
    """
    return tuple(_unfold(network, "", _size(network)))


def frozen_stages(network: nn.Module, freeze: str) -> tuple[Stage, ...]:
    """Return the stages that are not trained.

    Args:
        network: the backbone.
        freeze: a share, "0" for none to "1" for all, or the name of the last stage to be frozen; the beginning of a
            name will do: ``layer2`` means all of its blocks.

    Raises:
        InvalidRequestError: no stage has this name; the text lists them.
    """
    all_stages = stages(network)
    try:
        share = float(freeze)
    except ValueError:
        named = [index for index, stage in enumerate(all_stages) if f"{stage.name}.".startswith(f"{freeze}.")]
        if not named:
            names = ", ".join(stage.name for stage in all_stages)
            raise InvalidRequestError(
                f"--freeze: no stage {freeze!r}; a share such as 0.5, or one of: {names}"
            ) from None
        return all_stages[: named[-1] + 1]
    if not 0 <= share <= 1:
        raise InvalidRequestError(f"--freeze: {freeze} is not a share from 0 to 1")
    return all_stages[: round(share * len(all_stages))]


class Frozen:
    """The frozen part of a network, without gradients or new statistics."""

    def __init__(self, network: nn.Module, freeze: str, *, train_norms: bool) -> None:
        """Freeze stages by `frozen_stages`, and parameters outside of stages."""
        self._network = network
        self._stages = frozen_stages(network, freeze)
        self._train_norms = train_norms
        if self._stages:
            for parameter in _outside(network):
                parameter.requires_grad_(False)  # class tokens and position embeddings come before the first stage
        for stage in self._stages:
            stage.module.requires_grad_(False)

    @property
    def names(self) -> tuple[str, ...]:
        """The stages that are frozen."""
        return tuple(stage.name for stage in self._stages)

    def train(self) -> None:
        """Put the network into training mode, except for what is frozen."""
        self._network.train()
        for stage in self._stages:
            stage.module.eval()
        if not self._train_norms:
            for module in self._network.modules():
                if isinstance(module, _BATCH_NORMS):
                    module.eval()


def parameter_groups(
    network: nn.Module, head: nn.Module, *, head_lr: float, backbone_lr: float, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return an optimizer's parameter groups, with the learning rate of each.

    The last stage learns at ``backbone_lr``, each earlier one ``layer_decay`` times slower. Biases
    and the scales of norms are not decayed. Frozen parameters are in no group. The key ``peak`` holds each group's
    highest rate, for the schedule.
    """
    all_stages = stages(network)
    depths = [(stage.module.parameters(), len(all_stages) - 1 - place) for place, stage in enumerate(all_stages)]
    depths.append((iter(_outside(network)), len(all_stages) - 1))
    groups = []
    for parameters, depth in depths:
        groups += _split(list(parameters), backbone_lr * layer_decay**depth, weight_decay)
    return groups + _split(list(head.parameters()), head_lr, weight_decay)


def _split(parameters: list[nn.Parameter], rate: float, weight_decay: float) -> list[dict[str, Any]]:
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    decayed = [parameter for parameter in learning if parameter.ndim > 1]
    others = [parameter for parameter in learning if parameter.ndim <= 1]
    return [
        {"params": members, "lr": rate, "peak": rate, "weight_decay": decay}
        for members, decay in ((decayed, weight_decay), (others, 0.0))
        if members
    ]


def _outside(network: nn.Module) -> list[nn.Parameter]:
    inside = {id(parameter) for stage in stages(network) for parameter in stage.module.parameters()}
    return [parameter for parameter in network.parameters() if id(parameter) not in inside]


def _unfold(module: nn.Module, prefix: str, total: int) -> Iterator[Stage]:
    for name, child in module.named_children():
        size = _size(child)
        sequence = not prefix and isinstance(child, nn.Sequential | nn.ModuleList)
        has_parts = any(_size(part) for part in child.children())
        if has_parts and (sequence or size > _DOMINANT * total):
            yield from _unfold(child, f"{prefix}{name}.", total)
        elif size:
            yield Stage(prefix + name, child)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
