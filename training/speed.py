"""How long finished models take for a picture on this machine."""

import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final

from regraft import artifact
from regraft.artifact import EMBEDDING, IMAGE, PROBABILITIES
from regraft.errors import InvalidImageError
from regraft.image import Crop, ImageSpec, decode_crop
from regraft.image_files import ImageFile
from regraft.progress import Progress, silent
from regraft.runtime import open_session

RUNS: Final = 30
_WARM_UP: Final = 3
_PICTURES: Final = 8


def ms_per_image(models: Sequence[Path], pictures: Iterable[ImageFile], progress: Progress = silent) -> list[float]:
    """Measure what one picture takes on one thread of the CPU, without its decoding.

    The models take turns, so that whatever else the machine does slows all of them alike.

    Args:
        models: their files; all are open at once.
        pictures: real ones, of which the first few that can be read are taken.
        progress: told the stage ``measure``.

    Returns:
        For each model the median of `RUNS` runs, in milliseconds.
    """
    files = list(pictures)
    sessions = [open_session(path, provider="cpu", threads=1).session for path in models]
    crops = [list(islice(_crops(files, artifact.read(path).card.image), _PICTURES)) for path in models]
    return _in_turns(sessions, crops, PROBABILITIES, progress)


def ms_per_crop(backbones: Sequence[bytes], crops: Sequence[Crop], progress: Progress = silent) -> list[float]:
    """Measure backbones that take the same crops, as `ms_per_image` does models."""
    sessions = [open_session(backbone, provider="cpu", threads=1).session for backbone in backbones]
    return _in_turns(sessions, [crops[:_PICTURES]] * len(sessions), EMBEDDING, progress)


def _in_turns(sessions: Sequence[Any], crops: Sequence[Sequence[Crop]], output: str, progress: Progress) -> list[float]:
    taken: list[list[float]] = [[] for _ in sessions]
    for turn in range(_WARM_UP + RUNS):
        for session, mine, times in zip(sessions, crops, taken, strict=True):
            crop = mine[turn % len(mine)][None]
            started = time.perf_counter()
            session.run([output], {IMAGE: crop})
            times.append(1000 * (time.perf_counter() - started))
        progress("measure", turn + 1, _WARM_UP + RUNS)
    return [round(median(times[_WARM_UP:]), 3) for times in taken]


def _crops(files: Iterable[ImageFile], spec: ImageSpec) -> Iterable[Crop]:
    for file in files:
        try:
            yield decode_crop(file.read_bytes(), spec)
        except (InvalidImageError, OSError):
            continue
