"""Validation of an exported file, beside the file that is served."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from regraft.errors import DatasetError, InvalidImageError
from regraft.files import text_of
from regraft.image.decode import decode_crop
from regraft.image.spec import ImageSpec
from regraft.machine import cpu_budget
from regraft.model.artifact import FloatArray
from regraft.progress import Progress
from regraft.stores.images import ImageFile
from training.evaluation.calibration import reliability
from training.evaluation.latency import in_turns
from training.evaluation.metrics import measure
from training.export.formats.runners import Picture, Runner
from training.export.result import ExportSide, Proof

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
        """Read and crop them one after the other, keeping none."""
        for file in self.files:
            try:
                data = file.read_bytes()
                yield Picture(data, decode_crop(data, self.spec))
            except (InvalidImageError, OSError) as error:
                raise DatasetError(
                    f"{text_of(Path(str(file)))}: a validation image that can no longer be read: {error}"
                ) from None


@dataclass(frozen=True)
class ValidatedFile:
    """A model file and its answers on the validation images.

    Attributes:
        run: its runner.
        probabilities: float32 [n, K].
        mb: its size.
    """

    run: Runner
    probabilities: FloatArray
    mb: float

    @staticmethod
    def run_on(validation: Validation, run: Runner, mb: float, lanes: int, progress: Progress) -> "ValidatedFile":
        """Run a file on the validation images, in so many threads."""
        rows = []
        progress("validate", 0, len(validation.files))
        with ThreadPoolExecutor(lanes) as pool:
            for done, row in enumerate(_mapped(pool, run, validation.pictures()), start=1):
                rows.append(row)
                progress("validate", done, len(validation.files))
        return ValidatedFile(run, np.stack(rows), mb)


def prove(
    served: ValidatedFile,
    exported: ValidatedFile,
    validation: Validation,
    takes: Literal["crop", "bytes"],
    *,
    timed: bool,
    progress: Progress,
) -> Proof:
    """Compare two files by their answers and their speed.

    The exported file ``takes`` crops, or bytes, where the time of decoding counts for both. It is ``timed`` only on
    the CPU that it is for.
    """

    def from_bytes(picture: Picture) -> FloatArray:
        return served.run(Picture(picture.data, decode_crop(picture.data, validation.spec)))

    times: list[float | None] = [None, None]
    if timed:
        shown = list(islice(validation.pictures(), _TIMED))
        runners = [from_bytes if takes == "bytes" else served.run, exported.run]
        times = list(in_turns(runners, [shown, shown], progress))
    before, after = served.probabilities, exported.probabilities
    return Proof(
        len(before),
        float((before.argmax(axis=1) == after.argmax(axis=1)).mean()),
        float(np.abs(before - after).max()),
        _side(served, validation, times[0]),
        _side(exported, validation, times[1]),
    )


def _side(file: ValidatedFile, validation: Validation, ms: float | None) -> ExportSide:
    metrics = measure(file.probabilities, validation.label_index, validation.labels)
    assert metrics is not None, "there are validation images, which the caller has seen to"
    error = reliability(file.probabilities, validation.label_index).ece
    return ExportSide(metrics.accuracy, metrics.accuracy_interval, metrics.log_loss, error, round(file.mb, 3), ms)


def _mapped(pool: ThreadPoolExecutor, run: Runner, pictures: Iterable[Picture]) -> Iterator[FloatArray]:
    """Map in order without reading all pictures ahead."""
    pictures = iter(pictures)
    while ahead := list(islice(pictures, 4 * cpu_budget())):
        yield from pool.map(run, ahead)
