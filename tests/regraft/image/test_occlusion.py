"""Drawings of where a network looked."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from regraft.image.occlusion import CELLS, tinted


@given(st.integers(CELLS, 100), st.integers(0, 2**32 - 1))
def test_the_hottest_cell_is_the_reddest_whatever_the_size(side_px: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    crop = np.full((side_px, side_px, 3), 128, np.uint8)
    heat = np.zeros((CELLS, CELLS), np.float32)
    row, column = random.integers(0, CELLS, 2)
    heat[row, column] = random.uniform(0.1, 100)

    drawn = tinted(crop, heat).astype(int)

    redness = drawn[..., 0] - drawn[..., 1]
    top, left = np.unravel_index(int(redness.argmax()), redness.shape)
    assert drawn.shape == (side_px, side_px, 3)
    assert abs((top + 0.5) * CELLS / side_px - (row + 0.5)) <= 1
    assert abs((left + 0.5) * CELLS / side_px - (column + 0.5)) <= 1
