"""Does an exported file still classify? It is asked about the validation images, beside the file that is served."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from regraft.datasets.folders import text_of
from regraft.errors import DatasetError, InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.spec import ImageSpec
from regraft.model.artifact import FloatArray
from regraft.model.session import cpu_budget
from regraft.progress import Progress
from regraft.stores.images import ImageFile
from training.evaluation.calibration import reliability
from training.evaluation.latency import in_turns
from training.evaluation.metrics import measure
from training.export.formats.runners import Answer, Picture, crop_answer
from training.export.result import Proof, Side

_TIMED: Final = 8


@dataclass(frozen=True)
class Validation:
    """The validation images of a version.

    Attributes:
        files: n of them.
        label_index: int64 [n], the true labels.
        labels: K of them.
        spec: how the served file wants them cut.
    """

    files: Sequence[ImageFile]
    label_index: npt.NDArray[np.int64]
    labels: tuple[str, ...]
    spec: ImageSpec

    def pictures(self) -> Iterator[Picture]:
        """Read and cut them one after the other, not keeping any."""
        for file in self.files:
            try:
                data = file.read_bytes()
                yield Picture(data, decode_crop(data, self.spec))
            except (InvalidImageError, OSError) as error:
                raise DatasetError(
                    f"{text_of(Path(str(file)))}: a validation image that can no longer be read: {error}"
                ) from None


def answers(ask: Answer, validation: Validation, lanes: int, progress: Progress) -> FloatArray:
    """Return probabilities [n, K] of the validation images."""
    found = []
    progress("validate", 0, len(validation.files))
    with ThreadPoolExecutor(lanes) as pool:
        for done, row in enumerate(_mapped(pool, ask, validation.pictures()), start=1):
            found.append(row)
            progress("validate", done, len(validation.files))
    return np.stack(found)


def prove(
    served: tuple[Path, FloatArray],
    exported: tuple[Answer, FloatArray, float],
    validation: Validation,
    takes: Literal["crop", "bytes"],
    *,
    timed: bool,
    progress: Progress,
) -> Proof:
    """Compare two files.

    Args:
        served: the file, and its answers [n, K].
        exported: how it is asked, its answers [n, K], and its size in MB.
        validation: what they were asked.
        takes: whether a picture counts from its crop, or from its bytes, which the served file's are then cut from.
        timed: whether this is the CPU that the export is for.
        progress: told the stage ``measure``.
    """
    path, before = served
    ask, after, mb = exported
    times: list[float | None] = [None, None]
    asked = crop_answer(path)

    def from_bytes(picture: Picture) -> FloatArray:
        return asked(Picture(picture.data, decode_crop(picture.data, validation.spec)))

    if timed:
        shown = list(islice(validation.pictures(), _TIMED))
        times = list(in_turns([from_bytes if takes == "bytes" else asked, ask], [shown, shown], progress))
    return Proof(
        len(before),
        float((before.argmax(axis=1) == after.argmax(axis=1)).mean()),
        float(np.abs(before - after).max()),
        _side(before, validation, path.stat().st_size / 1e6, times[0]),
        _side(after, validation, mb, times[1]),
    )


def _side(probabilities: FloatArray, validation: Validation, mb: float, ms: float | None) -> Side:
    metrics = measure(probabilities, validation.label_index, validation.labels)
    assert metrics is not None, "there are validation images, which the caller has seen to"
    error = reliability(probabilities, validation.label_index).ece
    return Side(metrics.accuracy, metrics.accuracy_interval, metrics.log_loss, error, round(mb, 3), ms)


def _mapped(pool: ThreadPoolExecutor, ask: Answer, pictures: Iterable[Picture]) -> Iterator[FloatArray]:
    """Map in order without reading all pictures ahead."""
    pictures = iter(pictures)
    while ahead := list(islice(pictures, 4 * cpu_budget())):
        yield from pool.map(ask, ahead)
