"""Confusion of a version on its holdout.

The answers are those of its head on stored embeddings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regraft.errors import PreconditionError, first_line
from regraft.model.artifact import Head


@dataclass(frozen=True)
class Cell:
    """The pictures of one label that one answer was given to.

    Attributes:
        label: index of the label.
        answer: index of the answer.
        sha256: hashes (hex) of the pictures, those first that the head is surest of.
    """

    label: int
    answer: int
    sha256: tuple[str, ...]

    @property
    def is_mistake(self) -> bool:
        """True where the answer is not the label."""
        return self.answer != self.label


@dataclass(frozen=True)
class Confusion:
    """The answers to the holdout's n pictures.

    Attributes:
        labels: K of them.
        label: int64 [n].
        answer: int64 [n].
        confidence: float32 [n], of the answer.
        sha256: bytes [n].
    """

    labels: tuple[str, ...]
    label: npt.NDArray[np.int64]
    answer: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]
    sha256: npt.NDArray[np.bytes_]

    @staticmethod
    def read(features: Path, head: Head) -> "Confusion":
        """Let a head answer the holdout of a features file.

        Raises:
            PreconditionError: there is no such file, it is damaged, or it has no holdout.
        """
        try:
            with features.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                held_out = np.asarray(file["is_holdout"], np.bool_)
                labels = tuple(str(label) for label in file["labels"])
                label = np.asarray(file["label_index"], np.int64)[held_out]
                sha256 = np.asarray(file["sha256"]).astype("S64")[held_out]
                embedding = np.asarray(file["embedding"][held_out], np.float32)
        except FileNotFoundError as error:
            raise PreconditionError(f"{features}: is not there, so nothing is known of a holdout") from error
        except Exception as error:
            raise PreconditionError(f"{features}: cannot be read ({first_line(error)})") from error
        if not len(label):
            raise PreconditionError(f"{features}: has no holdout: label more pictures, and retrain")
        probabilities = head.probabilities(embedding)
        answer = probabilities.argmax(axis=1).astype(np.int64)
        return Confusion(labels, label, answer, probabilities[np.arange(len(answer)), answer], sha256)

    @property
    def right(self) -> int:
        """Number of pictures that are answered rightly."""
        return int((self.label == self.answer).sum())

    def cells(self) -> Iterator[Cell]:
        """Yield the cells with at least one picture, the most pictures first."""
        place = self.label * len(self.labels) + self.answer
        surest_first = np.lexsort((self.sha256, -self.confidence, place))
        places, begins, counts = np.unique(place[surest_first], return_index=True, return_counts=True)
        for number in np.lexsort((places, -counts)):
            rows = surest_first[begins[number] : begins[number] + counts[number]]
            label, answer = divmod(int(places[number]), len(self.labels))
            yield Cell(label, answer, tuple(name.decode() for name in self.sha256[rows]))
