"""Laws of forecasts."""

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import ndtri

from training.evaluation.curve.law import forecast
from training.evaluation.curve.shares import SHARES

Answers = npt.NDArray[np.bool_]


def answers(pictures: int, errors: list[float], random: np.random.Generator) -> Answers:
    """Draw right answers [1, pictures, heads] of heads with these errors.

    A hard picture is hard for all of them.
    """
    hardness = np.sqrt(0.8) * random.normal(size=(pictures, 1)) + np.sqrt(0.2) * random.normal(
        size=(pictures, len(errors))
    )
    return np.asarray(hardness < ndtri(1 - np.array(errors)))[None]


def falling(labels: npt.NDArray[np.float64], floor: float, reach: float, rate: float) -> list[float]:
    return list(floor + reach * labels**-rate)


@settings(max_examples=30)
@given(arrays(np.bool_, st.tuples(st.integers(1, 3), st.integers(20, 60), st.just(4))), st.integers(1, 200))
def test_a_forecast_is_a_share_inside_its_interval_whatever_was_answered(right: Answers, more: int) -> None:
    made = forecast(right, SHARES, right.shape[1], more, right.shape[1])

    low, high = made.interval
    assert 0 <= low <= made.accuracy <= high <= 1
    assert made.gain == made.accuracy - right[..., -1].mean()


def test_nine_in_ten_intervals_hold_what_then_happens() -> None:
    held = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        labels = 200 * np.array([*SHARES, 1.5])
        right = answers(300, falling(labels, 0.03, 1.5, 0.5), random)
        made = forecast(right[:, :200, :4], SHARES, 200, 100, 200)
        held.append(made.interval[0] <= right[..., 4].mean() <= made.interval[1])

    assert np.mean(held) >= 0.85


def test_a_curve_that_is_flat_promises_nothing() -> None:
    flat = answers(400, [0.1] * 4, np.random.default_rng(0))
    steep = answers(400, falling(400 * np.array(SHARES), 0.0, 4.0, 0.6), np.random.default_rng(0))

    assert forecast(flat, SHARES, 400, 200, 400).gain < 0.012
    assert forecast(steep, SHARES, 400, 200, 400).gain > 0.015


def test_more_labels_bring_more_and_are_known_less() -> None:
    right = answers(200, falling(200 * np.array(SHARES), 0.05, 1.5, 0.5), np.random.default_rng(1))

    made = [forecast(right, SHARES, 200, more, 200) for more in (50, 100, 200, 400)]

    widths = [each.interval[1] - each.interval[0] for each in made]
    assert widths[0] < widths[-1]
    assert [each.accuracy for each in made] == sorted(each.accuracy for each in made)


def test_pictures_that_belong_together_tell_less() -> None:
    right = answers(200, falling(200 * np.array(SHARES), 0.05, 1.5, 0.5), np.random.default_rng(2))

    alone, together = (forecast(right, SHARES, 200, 100, independent).interval for independent in (200, 50))

    assert together[1] - together[0] > alone[1] - alone[0]
