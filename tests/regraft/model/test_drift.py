import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from regraft.model.artifact import FloatArray
from regraft.model.card import Reference
from regraft.model.drift import LEVEL, NOTABLE_KS, Shift, compare, figures_of, reference_of, rows_of

LABELS = ("ant", "bee", "cat")


def answers(images: int, seed: int, sureness: float = 4.0, distance: float = 0.2) -> tuple[FloatArray, FloatArray]:
    """Return probabilities [n, 3] and novelty [n] as a head gives them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, 3)) + sureness * np.eye(3)[rng.integers(3, size=images)]
    odds = np.exp(logits)
    novelty = np.abs(rng.normal(distance, 0.05, images))
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), novelty.astype(np.float32)


def reference(images: int = 400, seed: int = 0) -> Reference:
    made = reference_of(*answers(images, seed), LABELS, "holdout")
    assert made
    return made


def shifts_of(expected: Reference, probabilities: FloatArray, novelty: FloatArray) -> dict[str, Shift]:
    found = compare(expected, figures_of(probabilities, novelty, rows_of(expected, LABELS)))
    return {test.of: test for test in found}


def test_distance_and_confidence_are_compared_and_then_every_label() -> None:
    assert list(shifts_of(reference(), *answers(200, 1))) == ["distance", "confidence", *LABELS]


def test_answers_like_those_of_the_reference_are_no_drift_in_200_windows_but_by_the_stated_chance() -> None:
    expected = reference()
    alarms = [any(test.drifted for test in shifts_of(expected, *answers(200, seed)).values()) for seed in range(1, 201)]

    assert sum(alarms) <= 200 * LEVEL


@pytest.mark.parametrize(
    ("changed", "found"),
    [({"sureness": 1.5}, {"confidence", *LABELS}), ({"distance": 0.26}, {"distance"})],
)
def test_drift_is_found_in_what_changed(changed: dict[str, float], found: set[str]) -> None:
    shifts = shifts_of(reference(), *answers(200, 1, **changed))

    assert {name for name, shift in shifts.items() if shift.drifted} == found


def test_a_class_that_comes_more_often_is_drift_of_its_probability() -> None:
    probabilities, novelty = answers(600, 1)
    kept = (probabilities.argmax(axis=1) == 0) | (np.arange(600) % 4 == 0)

    shifts = shifts_of(reference(), probabilities[kept], novelty[kept])

    assert shifts["ant"].drifted
    assert not shifts["distance"].drifted


def test_few_answers_prove_nothing() -> None:
    shifts = shifts_of(reference(), *answers(3, 1, sureness=1.0))

    assert shifts["confidence"].ks > NOTABLE_KS
    assert not any(test.drifted for test in shifts.values())


def test_a_small_difference_is_not_called_drift_however_sure_it_is() -> None:
    confidence = shifts_of(reference(20_000), *answers(20_000, 1, sureness=3.6))["confidence"]

    assert confidence.p_value < 1e-6
    assert confidence.ks < NOTABLE_KS
    assert not confidence.drifted


@given(st.integers(60, 101), st.integers(300, 600), st.integers(0, 99))
def test_the_figures_are_those_of_scipys_test_where_the_reference_holds_every_value(
    images: int, window: int, seed: int
) -> None:
    first, second = answers(images, seed), answers(window, seed + 1, distance=0.22)

    test = shifts_of(reference(images, seed), *second)["distance"]

    wanted = ks_2samp(first[1].round(4), second[1].round(4), method="asymp")
    assert test.ks == pytest.approx(wanted.statistic, abs=1e-6)
    assert test.p_value == pytest.approx(wanted.pvalue, abs=0.08)  # SciPy corrects the limit for small samples


def test_many_images_are_kept_as_101_values_that_change_the_statistic_by_less_than_a_hundredth() -> None:
    first, second = answers(3000, 0), answers(500, 1, distance=0.22)

    test = shifts_of(reference(3000), *second)["distance"]

    assert len(reference(3000).distance) == 101
    assert test.ks == pytest.approx(ks_2samp(first[1], second[1]).statistic, abs=0.01)


def test_tiny_probabilities_are_all_alike() -> None:
    """Whether a label has a millionth or a ten-thousandth is nothing that anybody should look after."""
    sure = np.tile(np.array([0.999998, 1e-6, 1e-6], np.float32), (200, 1))
    less_sure = np.tile(np.array([0.9998, 1e-4, 1e-4], np.float32), (200, 1))
    novelty = np.full(200, 0.2, np.float32)
    expected = reference_of(sure, novelty, LABELS, "holdout")
    assert expected

    assert {test.ks for test in shifts_of(expected, less_sure, novelty).values()} == {0.0}


def test_of_very_many_labels_the_commonest_are_kept_in_their_order() -> None:
    labels = [f"label {number}" for number in range(200)]
    probabilities = np.full((100, 200), 1e-3, np.float32)
    probabilities[:, 100:150] += 0.01

    expected = reference_of(probabilities, np.zeros(100, np.float32), labels, "out of fold")

    assert expected
    assert list(expected.probabilities) == labels[100:150]
    assert rows_of(expected, labels).tolist() == list(range(100, 150))


def test_fewer_than_20_images_are_no_reference() -> None:
    assert reference_of(*answers(19, 0), LABELS, "holdout") is None
    assert reference_of(*answers(20, 0), LABELS, "holdout") is not None
