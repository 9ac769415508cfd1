"""Arrows to the left and to the right: two classes that are each other's mirror image. No torch."""

from pathlib import Path

import numpy as np

from regraft.image.encode import encode_png
from regraft.model.artifact import FloatArray

LABELS = ("left", "right")


def arrow(label: str, number: int = 0, side_px: int = 128) -> bytes:
    """Return PNG number ``number`` of an arrow: place, size, tilt, colours and noise are functions of it."""
    random = np.random.default_rng([LABELS.index(label), number])
    back, front = _two_colours(random)
    tilt, length = random.uniform(-0.1, 0.1), side_px * random.uniform(0.7, 0.9)
    middle = side_px * random.uniform(0.48, 0.52, 2)
    down, along = np.mgrid[:side_px, :side_px] + 0.5 - middle[:, None, None]
    x = (along * np.cos(tilt) + down * np.sin(tilt)) / length  # -0.5 to 0.5 from end to end
    y = np.abs(down * np.cos(tilt) - along * np.sin(tilt)) / length
    ahead = x if label == "right" else -x
    shaft = (np.abs(x) < 0.5) & (ahead < 0.07) & (y < 0.1)
    tip = (ahead >= 0.05) & (y < 1.3 * (0.5 - ahead))
    pixels = np.where((shaft | tip)[..., None], front, back) + random.normal(0, 5, (side_px, side_px, 3))
    return encode_png(np.clip(pixels, 0, 255).astype(np.uint8))


def arrows(folder: Path, count: int, first: int = 0, side_px: int = 128) -> Path:
    """Write so many arrows of each direction into ``folder``, from number ``first`` on."""
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for number in range(first, first + count):
            (folder / label / f"{number:04}.png").write_bytes(arrow(label, number, side_px))
    return folder


def _two_colours(random: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Draw two colours that can be told apart."""
    while True:
        back, front = random.uniform(30, 225, (2, 3)).astype(np.float32)
        if np.abs(back - front).sum() > 120:
            return back, front
