"""Occlusion maps of what an answer depends on.

After Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014. They ask the served file alone,
so that they hold for any network.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from regraft.image.spec import Crop

CELLS: Final = 6
"""A side of the map; a window hides two by two cells of it, and moves by one."""
_TINT: Final = np.array((212, 72, 79), np.float32)

Heat = npt.NDArray[np.float32]


def hidden_in_turn(crop: Crop) -> list[Crop]:
    """Copy a crop [P, P, 3] with each window hidden.

    The windows go line by line.
    """
    return [_without(crop, window) for window in _windows(crop.shape[0])]


def heat_of(logits: npt.NDArray[np.floating[Any]], answer: int) -> Heat:
    """Measure the fall of log odds per hidden cell, float32 [CELLS, CELLS].

    Args:
        logits: [1 + windows, K], of the whole crop and then of `hidden_in_turn`.
        answer: the class that is asked about.
    """
    odds = _log_odds(logits, answer)
    falls = (odds[0] - odds[1:]).reshape(CELLS - 1, CELLS - 1)
    sums, counts = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for down in (0, 1):
        for along in (0, 1):
            place = np.s_[down : CELLS - 1 + down, along : CELLS - 1 + along]
            sums[place] += falls
            counts[place] += 1
    return np.asarray(sums / counts, np.float32)


def tinted(crop: Crop, heat: Heat) -> npt.NDArray[np.uint8]:
    """Tint a grey crop [P, P, 3] by its heat."""
    share = np.maximum(heat, 0) / max(float(heat.max()), 1e-12)
    smooth = np.asarray(Image.fromarray(share).resize(crop.shape[1::-1], Image.Resampling.BILINEAR))
    alpha = 0.7 * np.clip(smooth, 0, 1)[..., None]
    grey = crop.mean(axis=2, keepdims=True)
    return np.asarray((1 - alpha) * grey + alpha * _TINT, np.uint8)


def _windows(side_px: int) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of each window, line by line."""
    edges = np.linspace(0, side_px, CELLS + 1).round().astype(int)
    spans = [slice(edges[at], edges[at + 2]) for at in range(CELLS - 1)]
    return ((rows, columns) for rows in spans for columns in spans)


def _without(crop: Crop, window: tuple[slice, slice]) -> Crop:
    hidden = crop.copy()
    hidden[window] = crop.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    return hidden


def _log_odds(logits: npt.NDArray[np.floating[Any]], answer: int) -> npt.NDArray[np.float32]:
    others = np.delete(logits.astype(np.float64), answer, axis=1)
    most = others.max(axis=1)
    return np.asarray(logits[:, answer] - most - np.log(np.exp(others - most[:, None]).sum(axis=1)), np.float32)
