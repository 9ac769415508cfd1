from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.model.artifact import FloatArray
from tests.training.conftest import blobs
from training.evaluation.calibration import BINS, calibration, p_value, reliability, squared_error
from training.head.fit import fit

SHARES = st.floats(0, 1, width=32)


def rows(*probabilities: tuple[float, ...]) -> FloatArray:
    return np.array(probabilities, np.float32)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[FloatArray, list[int]]:
    """Draw probabilities [n, K], n from 0, and labels."""
    classes = draw(st.integers(2, 5))
    weights = draw(st.lists(st.lists(SHARES, min_size=classes, max_size=classes), max_size=30))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=len(weights), max_size=len(weights)))
    table = np.array(weights, np.float32).reshape(len(weights), classes) + np.float32(1e-6)
    return table / table.sum(axis=1, keepdims=True), labels


@given(predictions(), st.integers(1, 40))
def test_the_error_is_a_share_and_every_image_is_in_one_bin(drawn: tuple[FloatArray, list[int]], bins: int) -> None:
    probabilities, labels = drawn

    found = reliability(probabilities, np.array(labels, np.int64), bins)

    assert 0 <= found.ece <= 1
    assert len(found.bins) == bins
    assert sum(entry.images for entry in found.bins) == len(labels)
    right = sum(round(entry.accuracy * entry.images) for entry in found.bins)
    assert right == (probabilities.argmax(axis=1) == labels).sum()


@given(predictions())
def test_confidence_lies_in_its_own_bin(drawn: tuple[FloatArray, list[int]]) -> None:
    found = reliability(drawn[0], np.array(drawn[1], np.int64))

    for place, entry in enumerate(found.bins):
        if entry.images:
            assert place / BINS - 1e-6 <= entry.confidence <= (place + 1) / BINS + 1e-6


@given(predictions())
def test_the_order_of_the_images_does_not_matter(drawn: tuple[FloatArray, list[int]]) -> None:
    labels = np.array(drawn[1], np.int64)

    assert reliability(drawn[0][::-1], labels[::-1]).ece == pytest.approx(reliability(drawn[0], labels).ece)


def test_sure_and_right_is_perfect() -> None:
    assert reliability(rows((1, 0), (0, 1)), np.array([0, 1])).ece == 0


def test_sure_and_wrong_is_as_far_off_as_can_be() -> None:
    assert reliability(rows((1, 0), (0, 1)), np.array([1, 0])).ece == 1


def test_of_answers_at_80_percent_80_percent_should_be_right() -> None:
    probabilities = rows(*[(0.8, 0.2)] * 10)

    good = reliability(probabilities, np.array([0] * 8 + [1] * 2))
    poor = reliability(probabilities, np.array([0] * 5 + [1] * 5))

    assert good.ece == pytest.approx(0, abs=1e-6)
    assert poor.ece == pytest.approx(0.3, abs=1e-6)
    (entry,) = [entry for entry in poor.bins if entry.images]
    assert entry.confidence == pytest.approx(0.8)
    assert (entry.accuracy, entry.images) == (0.5, 10)


def test_bins_weigh_as_many_images_as_they_have() -> None:
    probabilities = rows(*[(1.0, 0.0)] * 9, (0.4, 0.6))

    assert reliability(probabilities, np.array([0] * 9 + [0])).ece == pytest.approx(0.06)


def test_before_is_the_head_without_its_temperature() -> None:
    features = blobs((30, 30, 30), 8, holdout=20, apart=2)
    served = fit(features).head
    cold = replace(served, weight=served.weight / np.float32(4), bias=served.bias / np.float32(4))

    found = calibration(cold, 4.0, features)

    holdout = features.holdout()
    assert found is not None
    assert found.before.ece == pytest.approx(
        reliability(served.probabilities(holdout.embedding), holdout.label_index).ece, abs=1e-5
    )
    assert found.after == reliability(cold.probabilities(holdout.embedding), holdout.label_index)
    assert found.before.ece != found.after.ece


def test_a_temperature_of_one_changes_nothing() -> None:
    features = blobs((20, 20), 6, holdout=10)
    found = calibration(fit(features).head, 1.0, features)

    assert found is not None
    assert found.before == found.after


def test_without_holdout_there_is_nothing_to_compare() -> None:
    features = blobs((20, 20), 6)

    assert calibration(fit(features).head, 1.0, features) is None


def answers(images: int, seed: int, *, overconfident: float = 0.0) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Draw answers of a head of two classes that is 91 % sure on average, and right so much less often than it says."""
    random = np.random.default_rng(seed)
    confidence = 0.5 + 0.5 * random.beta(4.1, 0.9, images)
    right = random.random(images) < confidence - overconfident
    return np.column_stack([confidence, 1 - confidence]).astype(np.float32), np.where(right, 0, 1)


def test_the_squared_error_of_a_calibrated_head_is_none_on_average_however_few_the_images() -> None:
    for images in (30, 200):
        found = [squared_error(*answers(images, seed)) for seed in range(600)]

        assert abs(float(np.mean(found))) < 3 * float(np.std(found)) / 600**0.5
        assert np.mean([reliability(*answers(images, seed)).ece for seed in range(20)]) > 0.02  # which has that bias


def test_the_squared_error_of_an_overconfident_head_is_how_far_it_is_off() -> None:
    found = [squared_error(*answers(100, seed, overconfident=0.15)) for seed in range(400)]

    assert float(np.mean(found)) ** 0.5 == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize("images", [30, 150])
def test_a_calibrated_head_is_taken_for_a_wrong_one_as_rarely_as_the_test_says(images: int) -> None:
    alarms = sum(p_value(*answers(images, seed)) <= 0.05 for seed in range(200))

    assert alarms <= 200 * 0.05 + 2.5 * (200 * 0.05 * 0.95) ** 0.5


def test_an_overconfident_head_is_found() -> None:
    assert sum(p_value(*answers(150, seed, overconfident=0.15)) <= 0.05 for seed in range(20)) >= 18


def test_two_images_or_none_say_nothing() -> None:
    nothing = np.empty((0, 2), np.float32), np.empty(0, np.int64)

    assert (squared_error(*nothing), p_value(*nothing)) == (0, 1)
    assert (squared_error(*answers(1, 0)), p_value(*answers(1, 0))) == (0, 1)
