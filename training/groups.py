"""Groups of pictures that belong together: near-duplicates, the shots of a burst, the pictures of a patient.

A group is an int64, a function of its name or of its pictures alone, so that it means the same in every version and on
every machine.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

_DIGITS: Final = 15
"""60 bits: never negative, and two of a million groups are the same by accident once in two million data sets."""


def group_of_one(sha256: str) -> int:
    """Return the group of a picture that belongs to no other, by its hash (hex)."""
    return int(sha256[:_DIGITS], 16)


def groups_of_one(sha256: Iterable[str]) -> npt.NDArray[np.int64]:
    """Return the groups [n] of pictures that do not belong together."""
    return np.array([group_of_one(name) for name in sha256], np.int64)


def group_named(name: str) -> int:
    """Return the group that a person gave a name."""
    return group_of_one(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest())
