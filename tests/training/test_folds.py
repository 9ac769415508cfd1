from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.folds import deal

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
