"""Latency of model files on this machine."""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final

from regraft.image.spec import Crop, ImageSpec
from regraft.model import artifact
from regraft.model.artifact import EMBEDDING, IMAGE, PROBABILITIES
from regraft.model.session import open_session
from regraft.progress import Progress, silent
from regraft.stores.images import ImageFile
from training.data.crops import readable_crops

RUNS: Final = 30
_WARM_UP: Final = 3
_PICTURES: Final = 8


def ms_per_image(models: Sequence[Path], pictures: Iterable[ImageFile], progress: Progress = silent) -> list[float]:
    """Measure milliseconds a picture on one CPU thread, without decoding.

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
    crops = [_crops(files, artifact.read(path).card.image) for path in models]
    return in_turns([_asking(session, PROBABILITIES) for session in sessions], crops, progress)


def ms_per_crop(backbones: Sequence[bytes], crops: Sequence[Crop], progress: Progress = silent) -> list[float]:
    """Measure backbones that take the same crops, as `ms_per_image` does models."""
    sessions = [open_session(backbone, provider="cpu", threads=1).session for backbone in backbones]
    return in_turns(
        [_asking(session, EMBEDDING) for session in sessions], [crops[:_PICTURES]] * len(sessions), progress
    )


def in_turns(
    askers: Sequence[Callable[[Any], object]], pictures: Sequence[Sequence[Any]], progress: Progress = silent
) -> list[float]:
    """Measure milliseconds a call, by turns; see `ms_per_image`."""
    times_of: list[list[float]] = [[] for _ in askers]
    progress("measure", 0, _WARM_UP + RUNS)
    for turn in range(_WARM_UP + RUNS):
        for ask, own, times in zip(askers, pictures, times_of, strict=True):
            picture = own[turn % len(own)]
            started = time.perf_counter()
            ask(picture)
            times.append(1000 * (time.perf_counter() - started))
        progress("measure", turn + 1, _WARM_UP + RUNS)
    return [round(median(times[_WARM_UP:]), 3) for times in times_of]


def _asking(session: Any, output: str) -> Callable[[Crop], object]:  # noqa: ANN401 - the package ships no type information
    return lambda crop: session.run([output], {IMAGE: crop[None]})


def _crops(files: Iterable[ImageFile], spec: ImageSpec) -> list[Crop]:
    named = ((str(file), file) for file in files)
    return [crop for _, crop in islice(readable_crops(named, spec), _PICTURES)]
