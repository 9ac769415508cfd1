import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regraft.errors import InvalidImageError
from regraft.image.encode import encode_png, thumbnail
from tests.regraft.image.pictures import (
    MODES,
    STORED_AS,
    distance,
    encoded,
    noise,
    plain,
    png_header,
    quadrants,
    stored,
    waves,
)


@settings(max_examples=50)
@given(width=st.integers(1, 9), height=st.integers(1, 9), grey=st.booleans(), seed=st.integers(0, 2**16))
def test_a_png_that_was_encoded_opens_as_the_same_pixels(width: int, height: int, grey: bool, seed: int) -> None:
    shape = (height, width) if grey else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)

    opened = Image.open(io.BytesIO(encode_png(pixels)))

    assert opened.format == "PNG"
    np.testing.assert_array_equal(np.asarray(opened), pixels)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (3000, 40), (5000, 2)])
def test_a_thumbnail_is_a_small_jpeg_of_the_whole_picture(width: int, height: int) -> None:
    small = opened(thumbnail(encoded(waves(width, height), "JPEG", quality=95), 160))

    assert (small.format, small.mode) == ("JPEG", "RGB")
    assert max(small.size) == 160
    scale = 160 / max(width, height)
    assert abs(small.width - width * scale) <= 1
    assert abs(small.height - height * scale) <= 1
    same = waves(width, height).resize(small.size, Image.Resampling.BICUBIC)
    assert distance(np.asarray(small), np.asarray(same)).mean() < 5


def test_a_picture_that_is_small_already_keeps_its_size() -> None:
    assert opened(thumbnail(encoded(plain("RGB", (200, 100, 50), 24), "PNG"), 160)).size == (24, 24)


@pytest.mark.parametrize("orientation", STORED_AS)
def test_a_thumbnail_is_upright(orientation: int) -> None:
    small = thumbnail(stored(quadrants(), orientation, "PNG"), 30)

    assert opened(small).size == (30, 20)
    assert distance(np.asarray(opened(small))[2, 2], np.array((255, 0, 0), np.uint8)).max() < 20


@pytest.mark.parametrize(("picture", "file_format", "options", "_mode", "colour"), MODES.values(), ids=MODES)
def test_a_thumbnail_has_the_colours_that_the_network_sees(
    picture: Callable[[], Image.Image],
    file_format: str,
    options: dict[str, Any],
    _mode: str,
    colour: tuple[int, int, int],
) -> None:
    small = opened(thumbnail(encoded(picture(), file_format, **options), 8))

    assert distance(np.asarray(small)[4, 4], np.array(colour, np.uint8)).max() <= 6


def test_a_thumbnail_carries_nothing_over_but_pixels() -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    data = encoded(noise(300, 300), "JPEG", comment=b"secret", exif=exif)

    assert b"secret" in data
    small = thumbnail(data, 100)
    assert b"secret" not in small
    assert b"taken at home" not in small


@pytest.mark.parametrize("data", [b"", b"no picture", png_header(50_000, 50_000), encoded(noise(64, 64), "JPEG")[:900]])
def test_of_what_cannot_be_decoded_there_is_no_thumbnail(data: bytes) -> None:
    with pytest.raises(InvalidImageError):
        thumbnail(data, 160)
