"""Rows beside the features that a head was fitted on, views above all, kept with the version for its retrains.

They are arrays of their own in ``features.npz``; a version without any, or of an earlier Regraft, has none.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from regraft.errors import ArtifactError
from training.head.features import Features
from training.head.fit import Additional

_FIELDS: Final = ("embedding", "label_index", "weight", "parent")


def arrays_of(further: Additional | None) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays by the names that they have in the file."""
    return {} if further is None else {f"further_{name}": getattr(further, name) for name in _FIELDS}


def load_further(path: Path) -> Additional | None:
    """Read what a version keeps beside its features.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if "further_parent" not in file:
                return None
            return Additional(*(file[f"further_{name}"] for name in _FIELDS))
    except Exception as error:
        raise ArtifactError(f"{path}: cannot read the rows beside the features ({error})") from error


def carried_over(further: Additional, old: Features, new: Features) -> Additional:
    """Return the rows as they belong to other features.

    A view whose picture is no training image any more is dropped, and so is a row of a class that ``new`` does not
    have; a view whose picture was relabelled follows it.

    Args:
        further: beside ``old``.
        old: the features of a version.
        new: those of the next.
    """
    before, after = old.train(), new.train()
    rows = {sha256: row for row, sha256 in enumerate(after.sha256)}
    now = np.array([rows.get(sha256, -2) for sha256 in before.sha256] + [-1], np.int64)  # parent -1 stays -1
    parent = now[further.parent]
    index = {label: position for position, label in enumerate(after.labels)}
    own = np.array([index.get(label, -1) for label in before.labels], np.int64)[further.label_index]
    label_index = np.where(parent >= 0, after.label_index[parent], own)
    kept = (parent > -2) & (label_index >= 0)
    return Additional(further.embedding[kept], label_index[kept], further.weight[kept], parent[kept])


def in_order(further: Additional) -> Additional:
    """Return the rows by their parents, so that when a picture came makes no difference."""
    order = np.argsort(further.parent, kind="stable")
    return Additional(
        further.embedding[order], further.label_index[order], further.weight[order], further.parent[order]
    )
