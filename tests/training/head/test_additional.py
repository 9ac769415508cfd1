"""Rows beside the features: joined, and without the views of held out rows."""

import numpy as np

from training.head.additional import Additional

VIEWS = Additional(
    np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 1, 1]), np.array([1.0, 0.5, 1.0]), np.array([0, 1, 2])
)
SECOND_SET = Additional(np.full((1, 2), 9, np.float32), np.array([0]), np.array([0.25]), np.array([-1]))


def test_rows_are_joined_in_order() -> None:
    joined = VIEWS.joined(SECOND_SET)

    np.testing.assert_array_equal(joined.embedding, [[0, 1], [2, 3], [4, 5], [9, 9]])
    assert (joined.weight.tolist(), joined.parent.tolist()) == ([1, 0.5, 1, 0.25], [0, 1, 2, -1])


def test_views_of_rows_that_are_held_out_leave_and_the_others_follow_their_pictures() -> None:
    rest = VIEWS.joined(SECOND_SET).without_views_of(np.array([False, True, False]))

    assert (rest.embedding[:, 0].tolist(), rest.label_index.tolist()) == ([0, 4, 9], [0, 1, 0])
    assert rest.parent.tolist() == [0, 1, -1]
