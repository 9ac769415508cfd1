"""Stratified folds of rows and groups."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]

_NO_FOLD: Final = -1


def deal(label_index: Index, count: int, seed: int, group: Index | None = None) -> Index:
    """Deal the rows of each class to folds, groups undivided.

    Groups of several rows come first, the largest at the head, each to the fold that has least of its classes; the
    shuffled rest of each class then fills the folds up to one level. Without groups, sizes of folds differ by one row
    at most, and so do the shares of each class.

    A class of two rows or more always has one outside any fold: where its groups would all lie in one, as those of a
    class do that is a single group, its rows are dealt one by one.

    Args:
        label_index: int64 [n], the classes.
        count: of folds.
        seed: shuffles.
        group: int64 [n]; None where every row is a group of its own.
    """
    random = np.random.default_rng(seed)
    folds = np.full(len(label_index), _NO_FOLD)
    if group is not None:
        _deal_groups(folds, label_index, count, _of_several(group, random))
    share = _share(folds, label_index, count)
    for index in np.unique(label_index):
        rows = random.permutation(np.flatnonzero((label_index == index) & (folds == _NO_FOLD)))
        folds[rows] = _fill(share[:, index], share.sum(axis=1), len(rows))
        share[:, index] += np.bincount(folds[rows], minlength=count)
    return folds


def _deal_groups(folds: Index, label_index: Index, count: int, groups: Iterator[Index]) -> None:
    """Deal groups of rows, in place, none to classes within one fold."""
    total = np.bincount(label_index)
    share = np.zeros((count, len(total)))
    for rows in groups:
        classes, members = np.unique(label_index[rows], return_counts=True)
        crowded = share[:, classes] @ (members / total[classes] ** 2)  # the least sum of squared shares of a class
        fold = np.lexsort((share.sum(axis=1), crowded))[0]
        share[fold, classes] += members
        folds[rows] = fold
    in_one = (share.max(axis=0) == total) & (total > 1)
    folds[in_one[label_index]] = _NO_FOLD


def _of_several(group: Index, random: np.random.Generator) -> Iterator[Index]:
    """Yield the rows of groups with several, largest first."""
    _, number, sizes = np.unique(group, return_inverse=True, return_counts=True)
    order = np.argsort(number, kind="stable")
    ends = np.cumsum(sizes)
    several = random.permutation(np.flatnonzero(sizes > 1))
    for each in several[np.argsort(-sizes[several], kind="stable")]:
        yield order[ends[each] - sizes[each] : ends[each]]


def _share(folds: Index, label_index: Index, count: int) -> Index:
    """Count the rows of each class and fold, int64 [count, K]."""
    share = np.zeros((count, int(label_index.max(initial=-1)) + 1), np.int64)
    dealt = folds != _NO_FOLD
    np.add.at(share, (folds[dealt], label_index[dealt]), 1)
    return share


def _fill(share: Index, sizes: Index, rows: int) -> Index:
    """Choose folds [rows] that level the shares of a class."""
    levels = share[:, None] + np.arange(rows)
    folds = np.repeat(np.arange(len(share)), rows).reshape(levels.shape)
    order = np.lexsort((folds.ravel(), np.repeat(sizes, rows), levels.ravel()))
    return np.asarray(folds.ravel()[order][:rows], np.int64)
