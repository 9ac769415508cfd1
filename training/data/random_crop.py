"""Random crops of pictures, for augmentation."""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from regraft.image.decode import upright_size
from regraft.image.spec import ImageSpec, Window

Strength = Literal["none", "light", "full"]

_SMALLEST: Final[dict[Strength, float]] = {"none": 1.0, "light": 0.7, "full": 0.35}
_TRIES: Final = 10
_ASPECTS: Final = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Augmentation:
    """Strength of augmentation.

    Attributes:
        strength: ``none`` shows it as the server will; ``light`` takes windows of most of it; ``full`` windows of a
            third of it and more and, where a network learns, other colours and angles too.
        mirror: whether its mirror image shows the same.
    """

    strength: Strength = "full"
    mirror: bool = True

    @property
    def window_share(self) -> tuple[float, float]:
        """Range of the picture's area that a window keeps."""
        return smallest_window(self.strength), 1.0


def smallest_window(strength: Strength) -> float:
    """Return the least share of its area that a window keeps."""
    return _SMALLEST[strength]


def window_for(data: bytes, spec: ImageSpec, random: np.random.Generator, share: tuple[float, float]) -> Window:
    """Draw a window to crop as the whole picture would be.

    By ``crop`` whole pictures keep their proportions, so the part is nearly square; by ``squash`` and ``pad`` it has
    nearly the picture's own shape, and is out of shape, or between bars, as far as the whole one.

    Raises:
        InvalidImageError: the bytes are no picture, or over the limits.
    """
    return random_window(upright_size(data) if spec.resize == "crop" else (1, 1), random, share)


def random_window(size: tuple[int, int], random: np.random.Generator, share: tuple[float, float]) -> Window:
    """Draw a window of random area and aspect ratio (Szegedy et al., 2015).

    Args:
        size: width and height of the upright picture in pixels.
        random: where the numbers come from.
        share: the least and the most of the picture's area, 0 to 1.

    Returns:
        A window whose sides are 3:4 to 4:3 in pixels; the largest centred square where ten draws do not fit.
    """
    width, height = size
    for _ in range(_TRIES):
        area = width * height * random.uniform(*share)
        aspect = math.exp(random.uniform(math.log(_ASPECTS[0]), math.log(_ASPECTS[1])))
        w, h = math.sqrt(area * aspect) / width, math.sqrt(area / aspect) / height
        if w <= 1 and h <= 1:
            return Window(random.uniform(0, 1 - w), random.uniform(0, 1 - h), w, h)
    side = min(width, height)
    w, h = side / width, side / height
    return Window((1 - w) / 2, (1 - h) / 2, w, h)
