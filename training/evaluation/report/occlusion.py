"""Occlusion maps of what an answer depends on. No torch.

After Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014. It asks the exported file alone,
so that it holds for any network.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.ndimage import zoom

from regraft.errors import InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.encode import encode_png, thumbnail
from regraft.image.spec import Crop
from regraft.machine import cpu_budget
from regraft.model.artifact import FloatArray, Head
from regraft.progress import Progress, silent
from regraft.stores.images import ImageFile
from training.head.features import Embedder

MOST_PICTURES: Final = 6
"""Each costs as much as embedding 26 pictures."""
CELLS: Final = 6
"""A side of the map; a window hides two by two cells of it, and moves by one."""
BATCH: Final = 5
_TINT: Final = np.array((212, 72, 79), np.float32)
_THUMBNAIL_PX: Final = 160

Answer: TypeAlias = Callable[[Sequence[Crop]], FloatArray]
"""Returns the logits float32 [N, K] of N crops."""


def occlusion_maps(
    embedder: Embedder,
    head: Head,
    answers: Mapping[str, int],
    files: Mapping[str, ImageFile],
    progress: Progress = silent,
) -> dict[str, bytes]:
    """Draw the occlusion maps of the first pictures; skip unreadable ones.

    Args:
        embedder: of the backbone in the file.
        head: of the file.
        answers: row of the head's answer by image hash, the most interesting picture first.
        files: the pictures by image hash.
        progress: told the stage ``occlusion``.

    Returns:
        JPEGs by image hash.
    """

    def logits(crops: Sequence[Crop]) -> FloatArray:
        return embedder.run(list(crops)) @ head.weight.T + head.bias

    shown = [name for name in answers if name in files][:MOST_PICTURES]
    maps: dict[str, bytes] = {}
    progress("occlusion", 0, len(shown))
    with ThreadPoolExecutor(cpu_budget()) as pool:
        for done, name in enumerate(shown, start=1):
            try:
                crop = decode_crop(files[name].read_bytes(), embedder.spec)
            except (InvalidImageError, OSError):
                continue
            heat = importance(crop, answers[name], logits, pool)
            maps[name] = thumbnail(encode_png(tinted(crop, heat)), _THUMBNAIL_PX)
            progress("occlusion", done, len(shown))
    return maps


def importance(crop: Crop, answer: int, logits: Answer, pool: ThreadPoolExecutor) -> FloatArray:
    """Measure the fall of log odds per hidden cell, float32 [CELLS, CELLS]."""
    windows = list(_windows(crop.shape[0]))
    hidden = [_without(crop, window) for window in windows]
    batches = [[crop], *(hidden[start : start + BATCH] for start in range(0, len(hidden), BATCH))]
    odds = np.concatenate([_log_odds(rows, answer) for rows in pool.map(logits, batches)])
    falls = (odds[0] - odds[1:]).reshape(CELLS - 1, CELLS - 1)
    sums, counts = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for down in (0, 1):
        for along in (0, 1):
            place = np.s_[down : CELLS - 1 + down, along : CELLS - 1 + along]
            sums[place] += falls
            counts[place] += 1
    return np.asarray(sums / counts, np.float32)


def tinted(crop: Crop, heat: FloatArray) -> npt.NDArray[np.uint8]:
    """Tint a grey crop [P, P, 3] by its heat."""
    side = crop.shape[0]
    share = np.maximum(heat, 0) / max(float(heat.max()), 1e-12)
    smooth = np.clip(zoom(share, side / CELLS, order=1, grid_mode=True, mode="nearest"), 0, 1)[..., None]
    grey = crop.mean(axis=2, keepdims=True)
    alpha = 0.7 * smooth[:side, :side]
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


def _log_odds(logits: FloatArray, answer: int) -> FloatArray:
    others = np.delete(logits.astype(np.float64), answer, axis=1)
    most = others.max(axis=1)
    return np.asarray(logits[:, answer] - most - np.log(np.exp(others - most[:, None]).sum(axis=1)), np.float32)
