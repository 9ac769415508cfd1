import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.convolutions import colour_crops, conv_backbone
from training.quantisation.activations import Activations, ranges, watch

MODEL = conv_backbone()
EXTREMES = st.lists(st.tuples(st.floats(-100, 100), st.floats(0, 100)), min_size=1, max_size=20)


def range_of(extremes: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the range of a tensor by its least value in each crop, and how far above that the largest is."""
    return ranges(MODEL, Activations({"x": np.array([(least, least + more) for least, more in extremes])}, {}))["x"]


@given(EXTREMES)
def test_a_range_has_zero_in_it_and_nothing_that_was_never_seen(extremes: list[tuple[float, float]]) -> None:
    low, high = range_of(extremes)

    assert min(0, *(least for least, _ in extremes)) <= low <= 0 <= high
    assert high <= max(0, *(least + more for least, more in extremes))


def test_one_outlier_does_not_widen_a_range_and_a_second_kind_of_picture_does() -> None:
    usual, large = [(0.0, 1.0)] * 127, (0.0, 100.0)

    assert range_of([*usual, large])[1] < 20
    assert range_of(usual[:96] + [large] * 32)[1] == 100


def test_what_a_clipping_layer_cuts_off_needs_no_room_ahead_of_it() -> None:
    found = ranges(MODEL, watch(MODEL, colour_crops(2)))

    assert found["value 1"] == found["value 2"]
    assert found["value 1"][0] == 0


def test_the_mean_of_every_channel_that_goes_into_a_convolution_is_measured() -> None:
    crops = colour_crops(3)

    found = watch(MODEL, crops)

    pixels = (np.stack(crops) - np.array([120, 110, 100])) / np.array([60, 55, 50])  # as the graph normalises
    assert found.means.keys() == {"value 0", "value 2", "value 4"}
    np.testing.assert_allclose(found.means["value 0"], pixels.mean(axis=(0, 1, 2)), rtol=1e-4)
    assert found.ranges["value 0"][:, 0] == pytest.approx(pixels.min(axis=(1, 2, 3)), rel=1e-4)
    assert found.ranges["value 0"][:, 1] == pytest.approx(pixels.max(axis=(1, 2, 3)), rel=1e-4)
