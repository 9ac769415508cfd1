import io
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regraft.errors import InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.decoding_cost import DecodingCost, quick_cost, read_cost
from regraft.image.encode import encode_png
from regraft.image.limits import ImageLimits
from regraft.image.resize import smallest_useful_size
from regraft.image.spec import ImageSpec

SPEC = ImageSpec()
LEAST = partial(smallest_useful_size, spec=SPEC)
SIZE = (640, 480)


def encoded(form: str, mode: str = "RGB", size: tuple[int, int] = SIZE, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, form, **options)
    return buffer.getvalue()


def cost(data: bytes) -> DecodingCost:
    found = quick_cost(data, LEAST)
    assert found
    return found


@pytest.mark.parametrize(
    "data",
    [
        encoded("JPEG"),
        encoded("JPEG", "L"),
        encoded("JPEG", "CMYK", progressive=True),
        encoded("JPEG", comment=b"x" * 60_000),
        encoded("PNG"),
        encoded("PNG", "LA"),
        encoded("WEBP"),
        encoded("WEBP", lossless=True),
        encoded("WEBP", "RGBA", exif=Image.Exif().tobytes()),
    ],
    ids=["JPEG", "grey", "CMYK", "comment", "PNG", "alpha", "WebP", "lossless", "extended"],
)
def test_the_first_bytes_tell_how_many_pixels_there_are(data: bytes) -> None:
    assert cost(data).pixels == SIZE[0] * SIZE[1]


@pytest.mark.parametrize("form", ["BMP", "GIF", "TIFF", "AVIF"])
def test_of_other_formats_the_whole_header_is_read(form: str) -> None:
    data = encoded(form)

    assert quick_cost(data, LEAST) is None
    assert read_cost(data, ImageLimits()).pixels == SIZE[0] * SIZE[1]


def test_what_is_no_picture_is_refused_as_the_decoder_refuses_it() -> None:
    assert quick_cost(b"no picture", LEAST) is None
    with pytest.raises(InvalidImageError, match="not a picture"):
        read_cost(b"no picture", ImageLimits())


def test_a_large_jpeg_costs_what_it_is_decoded_to_and_a_progressive_one_its_coefficients() -> None:
    size = (4_000, 4_000)
    plain, progressive = encoded("JPEG", size=size), encoded("JPEG", size=size, progressive=True)

    assert cost(plain).memory_bytes < 2 * 4_000 * 4_000
    assert cost(progressive).memory_bytes > 6 * 4_000 * 4_000
    assert cost(encoded("PNG", "RGBA", size=size)).memory_bytes > cost(encoded("PNG", size=size)).memory_bytes


def test_a_jpeg_whose_components_come_one_by_one_costs_its_coefficients_too() -> None:
    plain = encoded("JPEG", size=(4_000, 4_000))
    at = plain.index(b"\xff\xda")
    one = plain[: at + 4] + b"\x01" + plain[at + 5 :]

    assert cost(one).memory_bytes > 6 * 4_000 * 4_000


def test_a_jpeg_of_a_thousand_segments_is_left_to_the_thread() -> None:
    data = encoded("JPEG")

    assert quick_cost(data[:2] + 1_000 * b"\xff\xe1\x00\x02" + data[2:], LEAST) is None


@given(
    st.sampled_from([encoded("JPEG", progressive=True), encoded("PNG"), encoded("WEBP", "RGBA"), encoded("WEBP")]),
    st.integers(0, 80),
    st.binary(max_size=8),
)
def test_whatever_the_bytes_are_they_cost_something_or_are_left_to_the_thread(
    whole: bytes, at: int, spoilt: bytes
) -> None:
    for data in (whole[:at] + spoilt + whole[at + len(spoilt) :], whole[:at]):
        found = quick_cost(data, LEAST)
        assert found is None or found.pixels >= 0


@given(
    st.tuples(st.integers(20, 300), st.integers(20, 300)),
    st.sampled_from(["crop", "squash", "pad"]),
    st.integers(8, 40),
    st.integers(0, 30),
    st.sampled_from([1, 6]),
)
@settings(max_examples=60)
def test_a_transparent_picture_gives_the_crop_of_the_same_picture_on_white(
    size: tuple[int, int], resize: str, crop_px: int, more: int, orientation: int
) -> None:
    """Only the part that is kept is laid on white."""
    spec = ImageSpec(resize, crop_px + more, crop_px)  # type: ignore[arg-type]  # one of the rules
    pixels = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 4), np.uint8)
    picture = Image.fromarray(pixels)
    turned = picture.transpose(Image.Transpose.ROTATE_270) if orientation == 6 else picture
    white = Image.new("RGBA", turned.size, "white")
    expected = encode_png(np.asarray(Image.alpha_composite(white, turned).convert("RGB")))
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x112] = orientation
    picture.save(buffer, "PNG", exif=exif)

    np.testing.assert_array_equal(decode_crop(buffer.getvalue(), spec), decode_crop(expected, spec))
