"""Occlusion maps of the worst mistakes, for the report. No torch."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

import numpy as np

from regraft.errors import InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.encode import encode_png, thumbnail
from regraft.image.occlusion import Heat, heat_of, hidden_in_turn, tinted
from regraft.image.spec import Crop
from regraft.machine import cpu_budget
from regraft.model.artifact import FloatArray, Head
from regraft.progress import Progress, silent
from regraft.stores.images import ImageFile
from training.head.features import Embedder

MOST_PICTURES: Final = 6
"""Each costs as much as embedding 26 pictures."""
BATCH: Final = 5
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


def importance(crop: Crop, answer: int, logits: Answer, pool: ThreadPoolExecutor) -> Heat:
    """Ask the network about a crop with each window hidden; see `heat_of`."""
    hidden = hidden_in_turn(crop)
    batches = [[crop], *(hidden[start : start + BATCH] for start in range(0, len(hidden), BATCH))]
    return heat_of(np.concatenate(list(pool.map(logits, batches))), answer)
