import numpy as np
import pytest

from regraft.model.artifact import FloatArray
from tests.training.conftest import blobs
from training.retrain.near_copies import near_copies, relatives


def test_copies_are_found_and_pictures_that_are_merely_of_one_class_are_not() -> None:
    features = blobs([30, 30, 30], 64)
    noise = np.random.default_rng(1).normal(scale=0.1, size=(5, 64))
    copies: FloatArray = np.asarray(features.embedding[:5] + noise, np.float32)
    both = np.concatenate([features.embedding, copies])
    classes = np.concatenate([features.label_index, features.label_index[:5]])

    assert near_copies(both, classes).tolist() == [[row, 90 + row] for row in range(5)]


@pytest.mark.parametrize("count", [2, 3, 5, 10, 14])
def test_a_new_class_that_is_small_and_far_from_all_others_is_no_set_of_copies(count: int) -> None:
    features = blobs([60, 60, count], 64, apart=30)

    assert near_copies(features.embedding, features.label_index).tolist() == []


def test_pictures_of_a_class_under_another_label_are_no_copies_of_all_that_are_rightly_labelled() -> None:
    features = blobs([60, 60], 64, apart=30)
    classes = features.label_index.copy()
    classes[np.flatnonzero(classes == 0)[:4]] = 1

    assert near_copies(features.embedding, classes).tolist() == []


def test_one_picture_or_none_has_no_copies() -> None:
    features = blobs([1, 1], 8)

    assert near_copies(features.embedding[:1], features.label_index[:1]).shape == (0, 2)
    assert near_copies(features.embedding[:0], features.label_index[:0]).shape == (0, 2)


def test_relatives_are_near_copies_and_those_of_the_same_group() -> None:
    features = blobs([20, 20], 32)
    first, second = (features.select(np.arange(40) % 2 == side) for side in (0, 1))
    assert relatives(first, second) == set()

    second.group[3] = first.group[5]
    second.embedding[4] = first.embedding[7]

    assert relatives(first, second) == {first.sha256[5], first.sha256[7]}
    assert relatives(first, second.select(np.zeros(20, np.bool_))) == set()
