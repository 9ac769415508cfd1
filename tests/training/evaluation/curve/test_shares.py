"""Answers of heads on shares of the labels."""

from dataclasses import replace

import numpy as np

from tests.training.conftest import blobs
from training.evaluation.curve.shares import SHARES, outcomes


def test_heads_that_learned_from_more_labels_answer_better() -> None:
    found = outcomes(blobs([60, 60, 60], 40, apart=2.0, holdout=10), 0.1)

    accuracy = found.right.mean(axis=(0, 1))

    assert found.rows.tolist() == list(range(210))
    assert found.right.shape[1:] == (210, len(SHARES))
    assert accuracy[0] < accuracy[1] < accuracy[3]


def test_nothing_is_learned_from_held_out_pictures() -> None:
    features = blobs([20, 20, 20], 12)
    held = features.label_index == 2

    found = outcomes(replace(features, is_holdout=held), 0.1)

    assert not found.right[:, held].any(), "nobody showed that class to any head"
    assert found.right[:, ~held, -1].mean() > 0.9


def test_a_large_set_is_asked_in_part_with_heads_that_learned_from_four_in_five() -> None:
    features = blobs([9_000, 9_000], 2, apart=2.0)

    found = outcomes(features, 0.1)

    assert len(found.rows) == 3_600
    assert found.right.shape == (1, 3_600, len(SHARES))


def test_a_class_that_a_share_lacks_does_no_harm() -> None:
    features = blobs([40, 40, 2], 8)

    found = outcomes(features, 1.0)

    assert found.right[:, features.label_index < 2, -1].mean() > 0.9


def test_the_same_pictures_give_the_same_answers() -> None:
    features = blobs([15, 15], 6, apart=1.0)

    assert np.array_equal(outcomes(features, 0.1).right, outcomes(features, 0.1).right)
