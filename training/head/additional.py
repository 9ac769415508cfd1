"""Training rows beside the features, kept with the version for its retrains."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from regraft.errors import ArtifactError
from regraft.model.artifact import FloatArray
from training.head.features import Features

_FIELDS: Final = ("embedding", "label_index", "weight", "parent")
_IN_FILE: Final = "further_"
"""Before the names of the arrays."""


@dataclass(frozen=True)
class Additional:
    """Rows to fit on, but not to choose or judge by.

    Attributes:
        embedding: float32 [a, D].
        label_index: int64 [a].
        weight: float64 [a], 0 to 1 training images each.
        parent: int64 [a], the row of ``features.train()`` that it is a view of and whose fold it is kept out of with
            it; -1 belongs to none.
    """

    embedding: FloatArray
    label_index: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    parent: npt.NDArray[np.int64]

    @staticmethod
    def none(size: int) -> "Additional":
        """Return no rows, of embeddings of a size."""
        empty = np.empty(0, np.int64)
        return Additional(np.empty((0, size), np.float32), empty, np.empty(0), empty)

    @staticmethod
    def read(path: Path) -> "Additional | None":
        """Read what a version keeps beside its features.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                if f"{_IN_FILE}parent" not in file:
                    return None
                return Additional(*(file[f"{_IN_FILE}{name}"] for name in _FIELDS))
        except Exception as error:
            raise ArtifactError(f"{path}: cannot read the rows beside the features ({error})") from error

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by their names in the file."""
        return {f"{_IN_FILE}{name}": getattr(self, name) for name in _FIELDS}

    def joined(self, other: "Additional") -> "Additional":
        """Return these rows and then those."""
        return Additional(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in _FIELDS))

    def in_order(self) -> "Additional":
        """Sort the rows by their parents, whatever the order of arrival."""
        return self._select(np.argsort(self.parent, kind="stable"), self.parent, self.label_index)

    def without_views_of(self, rows: npt.NDArray[np.bool_]) -> "Additional":
        """Drop the views of training rows [n], a mask; renumber other parents."""
        orphan = self.parent < 0
        number = np.cumsum(~rows) - 1
        return self._select(orphan | ~rows[self.parent], np.where(orphan, -1, number[self.parent]), self.label_index)

    def carried_over(self, old: Features, new: Features) -> "Additional":
        """Carry rows of old features over to new ones.

        A view whose picture is no training image any more is dropped, and so is a row of a class that ``new`` does not
        have; a view whose picture was relabelled follows it.
        """
        before, after = old.train(), new.train()
        rows = {sha256: row for row, sha256 in enumerate(after.sha256)}
        parent_now = np.array([rows.get(sha256, -2) for sha256 in before.sha256] + [-1], np.int64)  # -1 stays -1
        parent = parent_now[self.parent]
        index = {label: position for position, label in enumerate(after.labels)}
        own = np.array([index.get(label, -1) for label in before.labels], np.int64)[self.label_index]
        label_index = np.where(parent >= 0, after.label_index[parent], own)
        return self._select((parent > -2) & (label_index >= 0), parent, label_index)

    def _select(
        self,
        rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64],
        parent: npt.NDArray[np.int64],
        label_index: npt.NDArray[np.int64],
    ) -> "Additional":
        return Additional(self.embedding[rows], label_index[rows], self.weight[rows], parent[rows])
