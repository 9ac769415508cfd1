"""Speed of untrained networks on this machine. Imports torch."""

from pathlib import Path

import numpy as np

from regraft.progress import Progress, silent
from training.backbones.build import build_backbone
from training.backbones.cache import load_backbone
from training.backbones.onnx_export import export_backbone
from training.evaluation.latency import ms_per_crop


def ms_here(name: str, cache: Path, *, at_hand: bool, progress: Progress = silent) -> float:
    """Measure a network's time for a picture, in milliseconds.

    It runs as it would serve: on one thread of the CPU, without decoding.

    Args:
        name: of the network.
        cache: where its export is kept for the training to come, if its weights are there.
        at_hand: whether they are; random ones take as long, and are not kept.
        progress: told the stage ``measure``.

    Raises:
        RegraftError: it cannot be built, or exported.
    """
    if at_hand:
        exported = load_backbone(name, "default", 0, cache)
        model, side = exported.model, exported.spec.crop_px
    else:
        built = build_backbone(name, "none", 0)
        model, side = export_backbone(built), built.spec.crop_px
    crops = list(np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8))
    return ms_per_crop([model.SerializeToString()], crops, progress)[0]
