import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.damage import KINDS, generated, play
from benchmarks.formats import ROUNDING, page, rows
from regraft.errors import InvalidImageError
from regraft.image.decode import decode_crop, decode_window, upright_size
from regraft.image.encode import encode_png, thumbnail
from regraft.image.limits import ImageLimits
from regraft.image.png_chunks import SIGNATURE
from regraft.image.spec import ImageSpec, ResizeRule, Window
from tests import REPOSITORY
from tests.regraft.image.pictures import (
    FORMATS,
    INTERPOLATIONS,
    MODES,
    ORIENTATION,
    RULES,
    SMALL,
    STORED_AS,
    distance,
    encoded,
    noise,
    plain,
    png_header,
    quadrants,
    stored,
)

SPEC = ImageSpec("squash", 32, 32, "bilinear")
WHOLE = ImageSpec("squash", 64, 64, "bilinear")
"""Leaves the pixels of a 64 x 64 picture as they are."""
Pixels = npt.NDArray[np.uint8]


def tiff(pixels: npt.NDArray[Any], **options: Any) -> bytes:  # noqa: ANN401 - as above
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def photograph(side_px: int = 64) -> Image.Image:
    return generated(0).resize((side_px, side_px))


def ramp(highest: int) -> npt.NDArray[np.uint16]:
    """64 x 64 levels from 0 to ``highest``."""
    return np.linspace(0, highest, 64 * 64).round().astype(np.uint16).reshape(64, 64)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """Put a chunk behind the header of a PNG."""
    end = len(SIGNATURE) + 25
    return png[:end] + chunk(name, body) + png[end:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_picture_is_refused_or_decoded_to_the_last_pixel(kind: str) -> None:
    files = [KINDS[kind](picture) for picture in map(generated, range(4))]

    outcome = play(kind, files, 32, np.random.default_rng(0))

    assert outcome.wrong == []
    assert outcome.counts["refused"] > 0


@pytest.mark.parametrize(
    "look",
    [
        lambda data: decode_crop(data, SPEC),
        lambda data: decode_window(data, SPEC, Window(0, 0, 1, 1)),
        lambda data: thumbnail(data, 32),
    ],
    ids=["crop", "window", "thumbnail"],
)
@pytest.mark.parametrize("kind", ["JPEG, progressive", "PNG", "TIFF, LZW", "TIFF, deflate", "TIFF, JPEG"])
def test_no_look_at_a_damaged_picture_shows_what_was_not_decoded(look: Callable[[bytes], Any], kind: str) -> None:
    data = bytearray(KINDS[kind](photograph()))
    middle = len(data) // 2
    data[middle : middle + 8] = b"\xff\xd9\xff\xd9\xff\xd9\xff\xd9"

    with pytest.raises(InvalidImageError, match="cannot be decoded"):
        look(bytes(data))


def test_a_jpeg_that_ends_early_is_refused_even_with_an_end_marker() -> None:
    data = encoded(photograph(), "JPEG", quality=90)

    with pytest.raises(InvalidImageError, match="premature end"):
        decode_crop(data[: len(data) * 2 // 3] + b"\xff\xd9", SPEC)


@pytest.mark.parametrize("spare", [b"\0" * 40, b"\x55\xaa"], ids=["zeros", "two bytes"])
def test_what_cameras_put_before_the_end_of_a_jpeg_costs_nothing(spare: bytes) -> None:
    data = encoded(photograph(), "JPEG", quality=90)

    padded = data[:-2] + spare + data[-2:]

    np.testing.assert_array_equal(decode_crop(padded, WHOLE), decode_crop(data, WHOLE))


def test_a_jpeg_with_strange_scan_parameters_is_read() -> None:
    data = bytearray(encoded(photograph(), "JPEG", quality=90))
    scan = data.index(b"\xff\xda")
    data[scan + 11 : scan + 14] = b"\0\0\0"  # spectral selection 0 to 0, as some encoders write it

    np.testing.assert_array_equal(
        decode_crop(bytes(data), WHOLE), decode_crop(encoded(photograph(), "JPEG", quality=90), WHOLE)
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(64, 64), (333, 251), (1200, 900), (2000, 40)], ids=str)
def test_a_jpeg_has_the_pixels_that_pillow_gives_at_every_scale(mode: str, size: tuple[int, int]) -> None:
    data = encoded(photograph(64).resize(size).convert(mode), "JPEG", quality=85)
    by_pillow = Image.open(io.BytesIO(data))
    by_pillow.draft(None, (2 * 16, 2 * 16))
    pixels = encoded(by_pillow.convert("RGB"), "PNG")

    spec = ImageSpec("squash", 16, 16, "bilinear")

    np.testing.assert_array_equal(decode_crop(data, spec), decode_crop(pixels, spec))


def test_a_tiff_whose_strips_do_not_cover_the_picture_is_refused() -> None:
    data = bytearray(encoded(photograph(), "TIFF"))
    tags = Image.open(io.BytesIO(bytes(data))).tag_v2  # type: ignore[attr-defined]  # of a TIFF
    entry = bytes(data).index(struct.pack("<HH", 278, 4))  # rows in a strip
    assert tags[278] == 64
    data[entry + 8 : entry + 12] = struct.pack("<L", 40)

    with pytest.raises(InvalidImageError, match="strips of its TIFF are missing"):
        decode_crop(bytes(data), SPEC)


def gif(screen: tuple[int, int], **options: Any) -> bytes:  # noqa: ANN401 - as above
    """Return a GIF whose frame of 64 x 64 lies on a screen of this size."""
    data = encoded(photograph().quantize(32), "GIF", **options)
    return data[:6] + struct.pack("<HH", *screen) + data[10:]


def test_a_gif_whose_frame_leaves_a_part_of_the_picture_out_is_refused_unless_that_is_transparent() -> None:
    with pytest.raises(InvalidImageError, match="first frame of its GIF leaves a part of it out"):
        decode_crop(gif((64, 100)), SPEC)

    crop = decode_crop(gif((64, 128), transparency=31), WHOLE)

    assert (crop[40:] == 255).all()


@pytest.mark.parametrize(
    "metadata",
    [
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 3 * 2**20)),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x/>" * 2**20)),
        (b"tEXt", b"Comment\0" + b"x" * 3 * 2**20),
        (b"iCCP", b"profile\0\0" + zlib.compress(bytes(3 * 2**20))),
        (b"iCCP", b"profile\0\0not compressed at all"),
    ],
    ids=["compressed text", "XMP", "plain text", "colour profile", "damaged profile"],
)
def test_metadata_of_any_size_does_not_cost_a_png(metadata: tuple[bytes, bytes]) -> None:
    png = encoded(photograph(), "PNG")

    np.testing.assert_array_equal(decode_crop(with_chunk(png, *metadata), WHOLE), decode_crop(png, WHOLE))


def test_a_png_is_turned_by_exif_that_comes_behind_its_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = photograph().crop((0, 0, 64, 32))
    png = encoded(picture, "PNG")
    end = png.index(b"IEND") - 4

    turned = png[:end] + chunk(b"eXIf", exif.tobytes()[6:]) + png[end:]

    assert upright_size(turned) == (32, 64)
    upright = encoded(picture.transpose(Image.Transpose.ROTATE_270), "PNG")
    np.testing.assert_array_equal(decode_crop(turned, SPEC), decode_crop(upright, SPEC))


def test_a_png_that_needs_a_chunk_of_its_own_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidImageError, match="CgBI chunk is not known"):
        decode_crop(with_chunk(encoded(photograph(), "PNG"), b"CgBI", b"\0\0\0\0"), SPEC)


SIXTEEN_BITS: dict[str, Callable[[npt.NDArray[np.uint16]], bytes]] = {
    "PNG": lambda levels: encoded(Image.fromarray(levels), "PNG"),
    "TIFF": tiff,
    "TIFF, big-endian": lambda levels: tiff(levels, byteorder=">"),
    "TIFF, LZW": lambda levels: tiff(levels, compression="lzw"),
}


@pytest.mark.parametrize("file", SIXTEEN_BITS)
def test_grey_of_12_bits_in_16_keeps_its_levels(file: str) -> None:
    levels = ramp(4095)

    crop = decode_crop(SIXTEEN_BITS[file](levels), WHOLE)

    np.testing.assert_array_equal(crop[..., 0], levels >> 4)
    assert len(np.unique(crop)) == 256


@pytest.mark.parametrize("file", SIXTEEN_BITS)
def test_grey_of_16_bits_keeps_its_high_byte(file: str) -> None:
    levels = ramp(65535)

    np.testing.assert_array_equal(decode_crop(SIXTEEN_BITS[file](levels), WHOLE)[..., 0], levels >> 8)


def test_grey_of_12_bits_that_are_packed_keeps_its_levels_however_dark() -> None:
    for highest in (4095, 200):
        data = tiff(ramp(highest), bitspersample=12)

        np.testing.assert_array_equal(decode_crop(data, WHOLE)[..., 0], ramp(highest) >> 4)


@pytest.mark.parametrize("file", SIXTEEN_BITS)
def test_grey_of_which_nobody_knows_how_bright_it_is_is_refused(file: str) -> None:
    with pytest.raises(InvalidImageError, match=r"end at 255 of 65,535, .* 8 bits a channel"):
        decode_crop(SIXTEEN_BITS[file](ramp(255)), SPEC)


@pytest.mark.parametrize("file", SIXTEEN_BITS)
def test_grey_of_16_bits_may_be_black(file: str) -> None:
    assert not decode_crop(SIXTEEN_BITS[file](ramp(0)), SPEC).any()


def test_a_clear_level_of_grey_of_16_bits_is_white() -> None:
    levels = ramp(65535)
    levels[:32] = 12345

    crop = decode_crop(encoded(Image.fromarray(levels), "PNG", transparency=12345), WHOLE)

    assert (crop[:32] == 255).all()
    np.testing.assert_array_equal(crop[32:, :, 0], levels[32:] >> 8)


def colour_png(pixels: npt.NDArray[np.uint16]) -> bytes:
    """Write 16 bits a channel, which Pillow cannot."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


COLOUR: dict[str, Callable[[npt.NDArray[np.uint16]], bytes]] = {
    "PNG": colour_png,
    "TIFF": lambda pixels: tiff(pixels, photometric="rgb"),
    "TIFF, deflate": lambda pixels: tiff(pixels, photometric="rgb", compression="zlib"),
}


@pytest.mark.parametrize("file", COLOUR)
def test_colours_of_16_bits_keep_their_high_byte_and_of_12_bits_are_refused(file: str) -> None:
    pixels = np.stack([ramp(65535)] * 3, -1)

    np.testing.assert_array_equal(decode_crop(COLOUR[file](pixels), WHOLE), pixels >> 8)
    with pytest.raises(InvalidImageError, match="at most 12 are used: save the image with 8 bits"):
        decode_crop(COLOUR[file](np.right_shift(pixels, 4, dtype=np.uint16)), SPEC)


PLANES = np.moveaxis(np.stack([ramp(65535), ramp(65535)[::-1], ramp(65535).T], -1), -1, 0).copy()
LAYOUTS: dict[str, tuple[bytes, str]] = {
    "planar, 16 bits": (tiff(PLANES, photometric="rgb", planarconfig="separate"), "16 bits in separate planes"),
    "planar, 16 bits, tiles": (
        tiff(PLANES, photometric="rgb", planarconfig="separate", tile=(16, 16)),
        "16 bits in separate planes",
    ),
    "planar, 16 bits, CMYK": (
        tiff(np.concatenate([PLANES, PLANES[:1]]), photometric="separated", planarconfig="separate"),
        "16 bits in separate planes",
    ),
    "16 bits, 0 is white": (tiff(ramp(65535), photometric="miniswhite"), "in which 0 is white"),
    "YCbCr, subsampled": (
        tiff(np.zeros((64, 64, 3), np.uint8), photometric="ycbcr").replace(
            struct.pack("<HHLHH", 530, 3, 2, 1, 1), struct.pack("<HHLHH", 530, 3, 2, 2, 2)
        ),
        "subsampled YCbCr",
    ),
    "a predictor with PackBits": (
        tiff(ramp(255).astype(np.uint8), compression="packbits", predictor=2),
        "with a predictor",
    ),
    "a preview": (tiff(np.zeros((64, 64, 3), np.uint8), photometric="rgb", subfiletype=1), "camera raw"),
    "DNG": (
        tiff(np.zeros((64, 64, 3), np.uint8), photometric="rgb", extratags=[(50706, "B", 4, (1, 4, 0, 0), True)]),
        "camera raw",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_pillow_gets_wrong_is_refused_by_its_name(layout: str) -> None:
    data, name = LAYOUTS[layout]

    with pytest.raises(InvalidImageError, match=f"{name}.*(save|develop) it"):
        decode_crop(data, SPEC)


def test_every_format_depth_and_orientation_is_as_a_second_decoder_has_it_or_refused() -> None:
    every = rows()

    assert [(row.case.what, row.said) for row in every if (row.difference or 0) > ROUNDING] == []
    refused = {row.case.what for row in every if row.refused}
    assert len(refused) < len(every) / 8
    assert not any("orientation" in what or ("deflate" in what and "white" not in what) for what in refused)


def test_the_page_of_formats_is_as_the_benchmark_makes_it() -> None:
    assert (REPOSITORY / "docs/images.md").read_text(encoding="utf-8") == page()


def test_planes_of_16_bits_that_libtiff_puts_together_are_read() -> None:
    data = tiff(PLANES, photometric="rgb", planarconfig="separate", compression="zlib")

    np.testing.assert_array_equal(decode_crop(data, WHOLE), np.moveaxis(PLANES, 0, -1) >> 8)


def test_every_photograph_of_the_test_data_is_read(photographs: Path) -> None:
    for file in sorted(photographs.rglob("*.jpg"))[::40]:
        decode_crop(file.read_bytes(), SPEC)


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_gives_the_colour_of_the_picture(file_format: str) -> None:
    crop = decode_crop(encoded(plain("RGB", (200, 100, 50)), file_format), SMALL)

    assert crop.shape == (4, 4, 3)
    assert crop.dtype == np.uint8
    assert crop.flags.c_contiguous
    assert distance(crop, np.full((4, 4, 3), (200, 100, 50), np.uint8)).max() <= 3  # the lossy ones are off by a little


@pytest.mark.parametrize(("make", "file_format", "options", "mode", "colour"), MODES.values(), ids=MODES.keys())
def test_every_mode_becomes_rgb_by_a_fixed_rule(
    make: Callable[[], Image.Image], file_format: str, options: dict[str, Any], mode: str, colour: tuple[int, int, int]
) -> None:
    data = encoded(make(), file_format, **options)
    assert Image.open(io.BytesIO(data)).mode == mode, "the case does not test what its name says"

    crop = decode_crop(data, SMALL)

    assert distance(crop, np.full((4, 4, 3), colour, np.uint8)).max() <= 2


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_32_bits_are_refused_with_what_to_do(mode: str) -> None:
    data = encoded(plain(mode, 1), "TIFF")

    with pytest.raises(InvalidImageError, match=r"32 bits .* 8 or 16 bits"):
        decode_crop(data, SMALL)


@pytest.mark.parametrize(
    ("file_format", "options", "tolerance"),
    [("JPEG", {"quality": 100, "subsampling": 0}, 6), ("PNG", {}, 0), ("WEBP", {"lossless": True}, 0), ("TIFF", {}, 0)],
)
@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("rule", RULES)
def test_exif_orientation_gives_the_crop_of_the_upright_picture(
    rule: ResizeRule, orientation: int, file_format: str, options: dict[str, Any], tolerance: int
) -> None:
    spec = ImageSpec(resize=rule, resize_px=6, crop_px=4, interpolation="bilinear")
    upright = quadrants()
    transpose = STORED_AS[orientation]
    stored = upright if transpose is None else upright.transpose(transpose)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation

    crop = decode_crop(encoded(stored, file_format, exif=exif, **options), spec)

    assert distance(crop, decode_crop(encode_png(np.asarray(upright)), spec)).max() <= tolerance


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation

    crop = decode_crop(encoded(quadrants(), "PNG", exif=exif), SMALL)

    np.testing.assert_array_equal(crop, decode_crop(encoded(quadrants(), "PNG"), SMALL))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's, about the very damage that is meant here
def test_a_damaged_exif_block_does_not_cost_the_picture() -> None:
    damaged = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0"  # promises five entries, ends in the first

    crop = decode_crop(encoded(quadrants(), "PNG", exif=damaged), SMALL)

    np.testing.assert_array_equal(crop, decode_crop(encoded(quadrants(), "PNG"), SMALL))


@pytest.mark.parametrize(
    ("file_format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})]
)
def test_of_an_animation_the_first_frame_counts(file_format: str, options: dict[str, Any]) -> None:
    frames = [plain("RGB", colour) for colour in [(200, 0, 0), (0, 200, 0), (0, 0, 200)]]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3, "the case does not test what its name says"

    crop = decode_crop(data, SMALL)

    np.testing.assert_array_equal(crop, np.full((4, 4, 3), (200, 0, 0), np.uint8))


def test_a_jpeg_that_carries_a_second_picture_is_read_as_its_first() -> None:
    data = encoded(plain("RGB", (200, 100, 50)), "MPO", save_all=True, append_images=[plain("RGB", (0, 0, 0))])

    crop = decode_crop(data, SMALL)

    assert distance(crop, np.full((4, 4, 3), (200, 100, 50), np.uint8)).max() <= 3


def test_no_bytes_are_refused() -> None:
    with pytest.raises(InvalidImageError, match="empty"):
        decode_crop(b"", SMALL)


@pytest.mark.parametrize("data", [b"these are words and no picture", b"\0" * 4096], ids=["text", "zeros"])
def test_what_is_no_picture_is_refused_with_the_formats_there_are(data: bytes) -> None:
    with pytest.raises(InvalidImageError, match=r"format .* \(JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF\)"):
        decode_crop(data, SMALL)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_truncated_picture_is_refused_with_the_reason(file_format: str, kept: float) -> None:
    whole = encoded(noise(120, 90), file_format)
    decode_crop(whole, SMALL)  # whole, it is fine

    with pytest.raises(InvalidImageError, match="cannot be decoded: "):
        decode_crop(whole[: int(len(whole) * kept)], SMALL)


@pytest.mark.parametrize("size", [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (64_000_001, 1)], ids=str)
def test_a_picture_that_would_be_huge_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    data = png_header(*size)
    assert len(data) < 100

    with pytest.raises(InvalidImageError, match=f"{size[0]} x {size[1]} px; the limit is 64,000,000 pixels"):
        decode_crop(data, SMALL)


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_limit_on_pixels_holds_for_every_format_and_to_the_pixel(file_format: str) -> None:
    data = encoded(Image.new("RGB", (20, 10)), file_format)

    assert decode_crop(data, SMALL, ImageLimits(max_pixels=200)).shape == (4, 4, 3)
    with pytest.raises(InvalidImageError, match="20 x 10 px; the limit is 199 pixels"):
        decode_crop(data, SMALL, ImageLimits(max_pixels=199))


def test_the_limit_on_bytes_holds_to_the_byte() -> None:
    data = encoded(plain("RGB", (1, 2, 3)), "PNG")

    assert decode_crop(data, SMALL, ImageLimits(max_bytes=len(data))).shape == (4, 4, 3)
    with pytest.raises(InvalidImageError, match=f"the image has {len(data)} bytes; the limit is {len(data) - 1}"):
        decode_crop(data, SMALL, ImageLimits(max_bytes=len(data) - 1))


def test_the_limit_on_bytes_is_checked_before_anything_else() -> None:
    with pytest.raises(InvalidImageError, match="33,554,433 bytes; the limit is 33,554,432"):
        decode_crop(bytes(32 * 2**20 + 1), SMALL)


def test_what_is_no_picture_has_no_window_and_no_size() -> None:
    for look in (lambda data: decode_window(data, SMALL, Window(0, 0, 1, 1)), upright_size):
        with pytest.raises(InvalidImageError, match="not a picture in a format"):
            look(b"no picture at all")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_the_size_is_that_of_the_upright_picture(orientation: int, file_format: str) -> None:
    assert upright_size(stored(quadrants(), orientation, file_format)) == (60, 40)


@settings(max_examples=150)
@given(
    data=st.binary(max_size=300), prefix=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"])
)
def test_any_bytes_are_a_crop_or_an_invalid_image(data: bytes, prefix: bytes) -> None:
    crop_or_refused(prefix + data)


@settings(max_examples=200)
@given(
    file_format=st.sampled_from(FORMATS),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=8),
)
def test_a_picture_with_flipped_bits_is_a_crop_or_an_invalid_image(
    file_format: str, flips: list[tuple[float, int]]
) -> None:
    data = bytearray(PICTURES[file_format])
    for where, bits in flips:
        data[int(where * len(data))] ^= bits

    crop_or_refused(bytes(data))


PICTURES = {file_format: encoded(noise(24, 18), file_format) for file_format in FORMATS}


def crop_or_refused(data: bytes) -> None:
    complaint = "the image cannot be decoded"
    try:
        crop = decode_crop(data, SMALL, ImageLimits(max_pixels=10_000))
    except InvalidImageError as error:
        complaint = str(error)
    else:
        assert crop.shape == (4, 4, 3)
        assert crop.dtype == np.uint8
    assert complaint


def test_eight_threads_get_the_answers_that_one_gets() -> None:
    jobs = [
        (
            encoded(noise(150 + number, 120, seed=number), FORMATS[number % len(FORMATS)]),
            ImageSpec(rule, 48, 40, interpolation),
        )
        for number in range(8)
        for rule in RULES
        for interpolation in INTERPOLATIONS
    ]
    alone = [decode_crop(data, spec) for data, spec in jobs]
    start = Barrier(8)

    def all_of_them(thread: int) -> list[npt.NDArray[np.uint8]]:
        order = np.random.default_rng(thread).permutation(len(jobs))
        crops = {}
        start.wait()
        for index in order:
            crops[index] = decode_crop(*jobs[index])
        return [crops[index] for index in range(len(jobs))]

    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(all_of_them, range(8)))

    for crops in together:
        np.testing.assert_array_equal(crops, alone)


def test_a_crop_is_the_callers_own_and_writable() -> None:
    data = encoded(plain("RGB", (1, 2, 3)), "PNG")
    first = decode_crop(data, SMALL)

    first[:] = 0

    np.testing.assert_array_equal(decode_crop(data, SMALL), np.full((4, 4, 3), (1, 2, 3), np.uint8))
