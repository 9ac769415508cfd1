from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multinomial

from training.gate.noninferiority import holm, largest_loss, p_value_of_loss

N = 20
PAIRS = [(lost, gained) for lost in range(N + 1) for gained in range(N + 1 - lost)]


def probability(pairs: list[tuple[int, int]], loss: float, gain: float) -> float:
    """Return how likely N pictures give one of ``pairs``, where ``gain`` and ``gain + loss`` are the true shares."""
    counts = [(lost, gained, N - lost - gained) for lost, gained in pairs]
    shares = [gain + loss, gain, 1 - 2 * gain - loss]
    return float(multinomial.pmf(counts, N, shares).sum()) if pairs else 0.0


@cache
def p_values(limit: float) -> dict[tuple[int, int], float]:
    return {(lost, gained): p_value_of_loss(lost, gained, N, limit) for lost, gained in PAIRS}


@given(st.sampled_from([0.0, 0.005, 0.05, 0.2]), st.floats(0.001, 0.999), st.sampled_from([0.01, 0.05, 0.2]))
def test_a_loss_within_the_limit_is_shown_to_exceed_it_no_more_often_than_the_level(
    limit: float, share: float, level: float
) -> None:
    shown = [pair for pair, p_value in p_values(limit).items() if p_value <= level]

    assert probability(shown, limit, share * (1 - limit) / 2) <= level + 1e-3


def test_the_test_is_no_needlessly_timid_one() -> None:
    shown = [pair for pair, p_value in p_values(0.05).items() if p_value <= 0.05]

    sizes = [probability(shown, 0.05, gain) for gain in np.linspace(0.01, 0.45, 30)]
    assert max(sizes) > 0.03
    assert probability(shown, 0.4, 0.02) > 0.8


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 500), st.floats(0, 0.3))
def test_more_lost_or_a_narrower_limit_never_speaks_less_of_a_loss(
    lost: int, gained: int, equal: int, limit: float
) -> None:
    images = lost + gained + equal + 1
    p_value = p_value_of_loss(lost, gained, images, limit)

    assert 0 <= p_value <= 1
    assert p_value_of_loss(lost + 1, gained, images, limit) <= p_value + 1e-9
    assert p_value_of_loss(lost, gained, images, limit + 0.05) >= p_value - 1e-9
    if lost - gained <= images * limit:
        assert p_value == 1


def test_pictures_that_nobody_has_show_nothing() -> None:
    assert p_value_of_loss(0, 0, 0, 0.05) == 1
    assert largest_loss(0, 0, 0) == 1


def test_of_many_pictures_it_is_as_exact() -> None:
    assert p_value_of_loss(80, 20, 20_000, 0.001) == pytest.approx(3.17e-5, rel=0.01)
    assert p_value_of_loss(30, 0, 20_000, 0.001) < 0.05 < p_value_of_loss(26, 0, 20_000, 0.001)


@pytest.mark.parametrize("gain", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.1, 0.3])
def test_the_largest_loss_is_rarely_below_the_true_one(loss: float, gain: float) -> None:
    misses = [(lost, gained) for lost, gained in PAIRS if largest_loss(lost, gained, N) < loss]

    assert probability(misses, loss, gain) <= 0.07


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 400))
def test_the_largest_loss_is_no_smaller_than_the_observed_one(lost: int, gained: int, equal: int) -> None:
    images = lost + gained + equal

    assert max(0.0, (lost - gained) / images) <= largest_loss(lost, gained, images) <= 1
    assert largest_loss(lost, gained, images * 4) <= largest_loss(lost, gained, images) + 1e-9


def test_without_a_difference_the_largest_loss_is_about_three_by_the_number_of_pictures() -> None:
    assert largest_loss(0, 0, 50) == pytest.approx(0.051, abs=0.001)
    assert largest_loss(0, 0, 500) == pytest.approx(0.0054, abs=0.0001)


def test_holm_multiplies_the_least_by_all_and_the_next_by_those_that_are_left() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    adjusted = holm(p_values)

    assert all(a >= p - 1e-12 for a, p in zip(adjusted, p_values, strict=True))
    assert all(a <= b + 1e-12 for (_, a), (_, b) in pairwise(sorted(zip(p_values, adjusted, strict=True))))
