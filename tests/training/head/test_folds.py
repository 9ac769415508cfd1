from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.groups import group_named
from training.head.folds import deal

LABELS = st.lists(st.integers(2, 30), min_size=2, max_size=6).flatmap(
    lambda counts: st.permutations([index for index, count in enumerate(counts) for _ in range(count)])
)


@settings(max_examples=100)
@given(LABELS, st.integers(2, 6), st.integers(0, 5))
def test_folds_are_of_one_size_and_so_are_their_shares_of_every_class(
    label_index: Sequence[int], count: int, seed: int
) -> None:
    y = np.array(label_index)

    folds = deal(y, count, seed)

    for rows in [folds, *(folds[y == label] for label in set(label_index))]:
        shares = [Counter(rows.tolist())[fold] for fold in range(count)]
        assert max(shares) - min(shares) <= 1


@settings(max_examples=100)
@given(LABELS, st.integers(2, 6), st.integers(0, 5))
def test_without_any_fold_every_class_has_a_row_left(label_index: Sequence[int], count: int, seed: int) -> None:
    y = np.array(label_index)

    folds = deal(y, count, seed)

    assert all(set(y[folds != fold]) == set(label_index) for fold in range(count))


def test_the_seed_deals() -> None:
    y = np.repeat([0, 1], 30)

    np.testing.assert_array_equal(deal(y, 5, 1), deal(y, 5, 1))
    assert (deal(y, 5, 1) != deal(y, 5, 2)).any()


GROUPED = st.lists(st.lists(st.integers(1, 4), min_size=2, max_size=8), min_size=2, max_size=5)
"""The sizes of the groups of each class."""


def rows_in_groups(sizes: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the class and the group of each row, shuffled."""
    each = [(label, f"{label}/{number}") for label, groups in enumerate(sizes) for number in range(len(groups))]
    counts = [size for groups in sizes for size in groups]
    order = np.random.default_rng(0).permutation(sum(counts))
    y = np.repeat([label for label, _ in each], counts)[order]
    return y, np.repeat([group_named(name) for _, name in each], counts)[order]


@settings(max_examples=100)
@given(GROUPED, st.integers(2, 6), st.integers(0, 5))
def test_a_group_lies_in_one_fold_and_every_class_has_a_group_outside_any(
    sizes: Sequence[Sequence[int]], count: int, seed: int
) -> None:
    y, group = rows_in_groups(sizes)

    folds = deal(y, count, seed, group)

    assert all(len(set(folds[group == each])) == 1 for each in set(group.tolist()))
    assert all(set(y[folds != fold]) == set(y) for fold in range(count))


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=12), st.integers(2, 6))
def test_a_class_has_a_row_outside_any_fold_however_groups_and_classes_mix(
    groups: Sequence[Sequence[int]], count: int
) -> None:
    y = np.array([label for members in groups for label in members])
    group = np.repeat(np.arange(len(groups)), [len(members) for members in groups])

    folds = deal(y, count, 0, group)

    several = {label for label in set(y.tolist()) if (y == label).sum() > 1}
    assert set(folds.tolist()) <= set(range(count))
    assert all(several <= set(y[folds != fold].tolist()) for fold in range(count))


@settings(max_examples=50)
@given(st.integers(2, 6), st.integers(1, 8), st.integers(2, 4), st.integers(0, 3))
def test_groups_of_one_size_are_dealt_as_evenly_as_rows(count: int, groups: int, size: int, seed: int) -> None:
    y, group = rows_in_groups([[size] * groups * count] * 3)

    folds = deal(y, count, seed, group)

    for label in range(3):
        assert np.bincount(folds[y == label], minlength=count).tolist() == [size * groups] * count


def test_patients_of_several_classes_stay_whole_and_the_classes_shares_alike() -> None:
    patient = np.repeat(np.arange(40), 6)
    y = (np.arange(240) + patient // 20 * np.tile([0, 1], 120)) % 3

    folds = deal(y, 5, 0, patient)

    assert all(len(set(folds[patient == each])) == 1 for each in range(40))
    for label in range(3):
        shares = np.bincount(folds[y == label], minlength=5)
        assert shares.max() - shares.min() <= 3


@settings(max_examples=50)
@given(LABELS, st.integers(2, 6), st.integers(0, 5))
def test_groups_of_one_row_change_nothing(label_index: Sequence[int], count: int, seed: int) -> None:
    y = np.array(label_index)

    np.testing.assert_array_equal(deal(y, count, seed, np.arange(len(y))), deal(y, count, seed))
