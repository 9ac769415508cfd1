"""Groups of pictures: near-duplicates, shots of a burst, pictures of a patient.

A group is an int64, a function of its name or of its pictures alone, so that it means the same in every version and on
every machine.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.label_rules import HOLDOUT_SHARE

Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NO_PAIRS: Final[Index] = np.empty((0, 2), np.int64)
_FEWEST: Final = 2
_DIGITS: Final = 15
"""60 bits: never negative, and two of a million groups are the same by accident once in two million data sets."""


def group_of_one(sha256: str) -> int:
    """Return the group of a single picture, by its hash (hex)."""
    return int(sha256[:_DIGITS], 16)


def groups_of_one(sha256: Iterable[str]) -> Index:
    """Return the groups [n] of single pictures."""
    return np.array([group_of_one(name) for name in sha256], np.int64)


def group_named(name: str) -> int:
    """Return the group of a name that a person gave."""
    return group_of_one(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest())


def join(group: Index, names: Sequence[Collection[str]], pairs: Index = NO_PAIRS) -> Index:
    """Join pictures that share a name, or are paired, to groups [n].

    ``group`` is what is known, each picture's own else. A group that only one name holds together is named by it, so
    that a later picture of that name joins it; others by the lowest of their names, so that the order of the pictures
    makes no difference.
    """
    named = [group_named(next(iter(each))) if each else -1 for each in names]
    links = np.concatenate([linked(names), linked([[str(each)] for each in group]), pairs])
    return merged(np.where(np.array(named, np.int64) < 0, group, named), links)


def merged(group: Index, pairs: Index) -> Index:
    """Merge the groups [n] of paired rows [p, 2] under new names."""
    if not len(pairs):
        return group
    from scipy.sparse import coo_array  # noqa: PLC0415 - it takes a quarter of a second, which most data spare
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415 - likewise

    first, number = np.unique(group, return_inverse=True)
    count = len(first)
    links = coo_array((np.ones(len(pairs), np.bool_), (number[pairs[:, 0]], number[pairs[:, 1]])), (count, count))
    components, component = connected_components(links, directed=False)
    lowest = np.full(components, np.iinfo(np.int64).max)
    np.minimum.at(lowest, component, first)
    joined = np.bincount(component, minlength=components) > 1
    lowest[joined] = [group_named(f"joined {name}") for name in lowest[joined]]
    return np.asarray(lowest[component][number], np.int64)


def linked(names: Sequence[Collection[str]]) -> Index:
    """Pair rows [p, 2] so that all that share a name are linked."""
    last: dict[str, int] = {}
    pairs = []
    for row, each in enumerate(names):
        for name in each:
            if name in last:
                pairs.append((last[name], row))
            last[name] = row
    return np.array(pairs, np.int64).reshape(len(pairs), 2)


def hold_out(label_index: Index, group: Index) -> Mask:
    """Hold out a share of each class by whole groups.

    A class of fewer than three rows, or of one group, stays whole; of others at least one group is held out where that
    leaves two rows. All are [n].
    """
    total = np.bincount(label_index)
    target = np.where(total <= _FEWEST, 0, np.maximum(1, np.round(HOLDOUT_SHARE * total)))
    return take_groups(label_index, [rows for _, rows in rows_by_group(group)], target.tolist(), leave=_FEWEST)


def take_groups(label_index: Index, groups: Sequence[Index], target: Sequence[float], *, leave: int) -> Mask:
    """Take whole groups until each class has about its target of rows.

    Args:
        label_index: int64 [n].
        groups: the rows of each, in the order in which they are considered.
        target: how many rows of each class are wanted, [K].
        leave: how many rows of each class that is taken from are not, at least.

    Returns:
        bool [n], the rows that are taken.
    """
    total = np.bincount(label_index).tolist()
    members = [Counter(label_index[rows].tolist()) for rows in groups]
    taken_of = [0] * len(total)
    chosen: set[int] = set()

    def take(number: int) -> None:
        if all(total[label] - taken_of[label] - count >= leave for label, count in members[number].items()):
            chosen.add(number)
            for label, count in members[number].items():
                taken_of[label] += count

    for number, counts in enumerate(members):
        missing = {label: target[label] - taken_of[label] for label in counts}
        if sum((abs(missing[label] - counts[label]) - abs(missing[label])) / total[label] for label in counts) < 0:
            take(number)
    for each in [label for label, wanted in enumerate(target) if wanted and not taken_of[label]]:
        for number in sorted((n for n, counts in enumerate(members) if each in counts), key=lambda n: len(groups[n])):
            if not taken_of[each]:  # its groups are larger than what is wanted of it: the smallest, then
                take(number)
    rows = [groups[number] for number in sorted(chosen)]
    return np.isin(np.arange(len(label_index)), np.concatenate(rows) if rows else [])


def rows_by_group(group: Index) -> Iterator[tuple[int, Index]]:
    """Yield each group, in their order, and its rows."""
    names, sizes = np.unique(group, return_counts=True)
    order = np.argsort(group, kind="stable")
    yield from zip(names.tolist(), np.split(order, np.cumsum(sizes))[:-1], strict=True)
