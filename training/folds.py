"""Rows dealt to folds."""

import numpy as np
import numpy.typing as npt


def deal(label_index: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Deal the shuffled rows of each class in turn to folds 0 to ``count`` - 1.

    Sizes of folds differ by one row at most, and so do the shares of each class. A class of two rows or more always
    has one outside any fold.
    """
    random = np.random.default_rng(seed)
    folds, dealt = np.empty(len(label_index), np.int64), 0
    for index in np.unique(label_index):
        rows = random.permutation(np.flatnonzero(label_index == index))
        folds[rows] = (dealt + np.arange(len(rows))) % count
        dealt += len(rows)
    return folds
