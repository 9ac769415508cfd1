"""Random parts of a picture to train on."""

import math
from typing import Final

import numpy as np

from regraft.image import Window

_TRIES: Final = 10
_ASPECTS: Final = (3 / 4, 4 / 3)


def random_window(size: tuple[int, int], random: np.random.Generator, share: tuple[float, float]) -> Window:
    """Draw a part of a picture (Szegedy et al., "Going Deeper with Convolutions", 2015).

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
