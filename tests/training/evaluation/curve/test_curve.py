"""Learning curves of small and of large sets."""

from dataclasses import replace

import numpy as np

from tests.training.conftest import blobs
from training.evaluation.curve.curve import MORE, learning_curve


def test_a_curve_says_what_50_100_and_200_more_labels_bring() -> None:
    curve = learning_curve(blobs([50, 50, 50], 30, apart=2.0, holdout=10), 0.1)

    assert curve.labels == 180
    assert [point.labels for point in curve.points] == [45, 90, 135, 180]
    assert all(low <= point.accuracy <= high for point in curve.points for low, high in [point.accuracy_interval])
    assert [each.more for each in curve.forecasts] == list(MORE)
    assert curve.unknown == ()


def test_the_weakest_classes_come_first_with_forecasts_of_their_own() -> None:
    features = blobs([40, 40, 40, 40], 20, apart=2.5)
    mixed = replace(  # nothing tells the first two apart
        features, label_index=np.where(features.label_index < 2, np.arange(160) % 2, features.label_index)
    )

    weakest = learning_curve(mixed, 0.1).weakest

    assert {entry.label for entry in weakest[:2]} == set(mixed.labels[:2])
    assert [entry.points[-1].accuracy for entry in weakest] == sorted(entry.points[-1].accuracy for entry in weakest)
    assert all(len(entry.forecasts) == len(MORE) for entry in weakest)


def test_a_curve_of_six_pictures_says_that_it_cannot_know() -> None:
    curve = learning_curve(blobs([3, 3], 4), 0.1)

    assert not curve.points
    assert not curve.forecasts
    assert curve.unknown == (
        "6 pictures are labelled, and 0 classes have 5 or more: a learning curve takes 40, and two such classes",
    )


def test_a_curve_of_one_class_says_that_it_cannot_know() -> None:
    curve = learning_curve(blobs([40, 2], 4), 0.1)

    assert not curve.points
    assert "1 classes have 5 or more" in curve.unknown[0]


def test_a_class_of_too_few_pictures_is_named_and_not_forecast() -> None:
    curve = learning_curve(blobs([40, 40, 3], 6), 0.1)

    assert curve.points
    assert [entry.images for entry in curve.weakest] == [40, 40]
    assert "fewer than 5 pictures: class 2" in curve.unknown[0]


def test_what_lies_too_far_beyond_the_labels_is_not_told() -> None:
    curve = learning_curve(blobs([20, 20], 6, apart=1.0), 0.1)

    assert [each.more for each in curve.forecasts] == [50, 100]
    assert curve.unknown == ("what 200 more labels bring is not told by 40: label some first",)


def test_a_burst_tells_less_than_as_many_pictures_that_do_not_belong_together() -> None:
    features = blobs([50, 50], 20, apart=1.5)
    bursts = replace(features, group=np.arange(100) // 5)

    alone, together = (learning_curve(each, 0.1).points[-1].accuracy_interval for each in (features, bursts))

    assert together[1] - together[0] > alone[1] - alone[0]
