import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from regraft.image.encode import encode_png
from regraft.image.spec import ImageSpec, ResizeRule
from training.data.random_crop import random_window, window_for

SIZES = st.tuples(st.integers(1, 8000), st.integers(1, 8000))
SEEDS = st.integers(0, 2**63 - 1)
SHARES = st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(lambda two: (min(two), max(two)))


def blank(size: tuple[int, int]) -> bytes:
    return encode_png(np.zeros((size[1], size[0], 3), np.uint8))


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(SIZES, SEEDS, SHARES)
def test_a_window_lies_inside_the_picture(size: tuple[int, int], seed: int, share: tuple[float, float]) -> None:
    window = random_window(size, generator(seed), share)

    assert window.left >= 0
    assert window.top >= 0
    assert window.left + window.width <= 1 + 1e-9
    assert window.top + window.height <= 1 + 1e-9


@given(SIZES, SEEDS, SHARES)
def test_a_window_is_never_longer_than_four_by_three(
    size: tuple[int, int], seed: int, share: tuple[float, float]
) -> None:
    window = random_window(size, generator(seed), share)

    aspect = window.width * size[0] / (window.height * size[1])
    assert 3 / 4 * (1 - 1e-9) <= aspect <= 4 / 3 * (1 + 1e-9)


@given(SIZES, SEEDS, SHARES)
def test_a_window_has_the_share_asked_for_or_is_the_largest_square(
    size: tuple[int, int], seed: int, share: tuple[float, float]
) -> None:
    window = random_window(size, generator(seed), share)

    within = share[0] * (1 - 1e-9) <= window.width * window.height <= share[1] * (1 + 1e-9)
    side = min(size)
    is_square = math.isclose(window.width * size[0], side) and math.isclose(window.height * size[1], side)
    is_centred = math.isclose(2 * window.left + window.width, 1) and math.isclose(2 * window.top + window.height, 1)
    assert within or (is_square and is_centred)


@given(st.tuples(st.integers(1, 60), st.integers(1, 60)), SEEDS, SHARES, st.sampled_from(["squash", "pad"]))
def test_a_rule_that_shows_all_of_a_picture_gets_windows_of_the_pictures_own_shape(
    size: tuple[int, int], seed: int, share: tuple[float, float], rule: ResizeRule
) -> None:
    window = window_for(blank(size), ImageSpec(rule, 8, 8), generator(seed), share)

    assert 3 / 4 * (1 - 1e-9) <= window.width / window.height <= 4 / 3 * (1 + 1e-9)


@given(SEEDS)
def test_crop_gets_windows_that_are_nearly_square_in_pixels(seed: int) -> None:
    drawn = window_for(blank((60, 20)), ImageSpec("crop", 8, 8), generator(seed), (0.1, 0.3))

    assert drawn == random_window((60, 20), generator(seed), (0.1, 0.3))


@given(SEEDS)
def test_a_small_share_of_a_square_is_always_found(seed: int) -> None:
    window = random_window((100, 100), generator(seed), (0.3, 0.5))

    assert window.width * window.height * (1 + 1e-9) >= 0.3
    assert window.width * window.height <= 0.5 * (1 + 1e-9)


@given(SEEDS)
def test_a_strip_gives_the_square_in_its_middle(seed: int) -> None:
    window = random_window((1000, 10), generator(seed), (0.9, 1.0))

    assert (window.left, window.top, window.width, window.height) == (0.495, 0, 0.01, 1)


@given(SIZES, SEEDS)
def test_the_same_generator_draws_the_same_window(size: tuple[int, int], seed: int) -> None:
    assert random_window(size, generator(seed), (0.3, 1)) == random_window(size, generator(seed), (0.3, 1))


def test_windows_come_from_everywhere_in_the_picture() -> None:
    random = generator(0)
    windows = [random_window((400, 300), random, (0.1, 0.3)) for _ in range(500)]

    centres = np.array([(window.left + window.width / 2, window.top + window.height / 2) for window in windows])
    quarters = {(x > 0.5, y > 0.5) for x, y in centres}
    assert len(quarters) == 4
    np.testing.assert_allclose(centres.mean(axis=0), 0.5, atol=0.05)
