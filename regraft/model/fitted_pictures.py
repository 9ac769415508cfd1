"""Pictures that a head was fitted on, with out-of-fold answers.

A version keeps them in its features file. What a head answers on pictures that it was fitted on is surer of their
labels than it should be; the answers kept are out of fold, of heads that had not seen the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from regraft.errors import ArtifactError
from regraft.model.artifact import FloatArray

_IN_FILE: Final = "unseen_"
"""Before the names of the arrays."""

_Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FittedPictures:
    """The training images of a version, n of them.

    Attributes:
        sha256: bytes [n], ascending.
        labels: K of them, as published.
        label_index: int64 [n], the labels that the head was fitted on.
        label_probability: float32 [n], of this label by heads that had not seen the picture; NaN where none was kept.
        answer_index: int64 [n], what these heads answered; -1 where none was kept.
    """

    sha256: npt.NDArray[np.bytes_]
    labels: tuple[str, ...]
    label_index: _Indices
    label_probability: FloatArray
    answer_index: _Indices

    @staticmethod
    def none() -> "FittedPictures":
        """Return no pictures."""
        nothing = np.empty(0, np.int64)
        return FittedPictures(np.empty(0, "S64"), (), nothing, np.empty(0, np.float32), nothing)

    @staticmethod
    def read(path: Path) -> "FittedPictures":
        """Read a version's features file.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                fitted = ~np.asarray(file["is_holdout"], np.bool_)
                count = int(fitted.sum())
                is_kept = f"{_IN_FILE}answer" in file
                return FittedPictures(
                    np.asarray(file["sha256"]).astype("S64")[fitted],
                    tuple(str(label) for label in file["labels"]),
                    np.asarray(file["label_index"], np.int64)[fitted],
                    file[f"{_IN_FILE}label_probability"] if is_kept else np.full(count, np.nan, np.float32),
                    np.asarray(file[f"{_IN_FILE}answer"], np.int64) if is_kept else np.full(count, -1),
                )
        except Exception as error:
            raise ArtifactError(f"{path}: cannot read the pictures of the fit ({error})") from error

    def rows(self, hashes: Sequence[str]) -> _Indices:
        """Return the row [m] of each picture, -1 where it is absent."""
        wanted = np.array(hashes, "S64")
        if not len(self.sha256):
            return np.full(len(wanted), -1)
        rows = np.minimum(np.searchsorted(self.sha256, wanted), len(self.sha256) - 1)
        return np.where(self.sha256[rows] == wanted, rows, -1)


def unseen_arrays(rows: _Indices, probabilities: FloatArray, label_index: _Indices) -> dict[str, npt.NDArray[Any]]:
    """Return what a features file keeps of out-of-fold answers, by name.

    Args:
        rows: int64 [m], training images that were answered out of fold.
        probabilities: float32 [m, K], of them.
        label_index: int64 [n], the labels of all training images.
    """
    label_probability, answer = np.full(len(label_index), np.nan, np.float32), np.full(len(label_index), -1, np.int32)
    label_probability[rows] = probabilities[np.arange(len(rows)), label_index[rows]]
    answer[rows] = probabilities.argmax(axis=1)
    return {f"{_IN_FILE}label_probability": label_probability, f"{_IN_FILE}answer": answer}
