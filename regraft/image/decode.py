"""Decoding of pictures, whole or not at all.

Each picture is decoded once and strictly. What a decoder would paper over (data that end early, or make no sense) is an
error: a picture is whole or it is refused. Pillow decodes all formats but JPEG, whose scans go through simplejpeg: the
same libjpeg-turbo, which there says when it had to guess.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import AvifImagePlugin, Image, ImageFile, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from regraft.errors import InvalidImageError
from regraft.image.file_kinds import format_of, unsupported_kind
from regraft.image.jpeg_scans import MOST_SCANS, read_scans
from regraft.image.limits import ImageLimits, configured_limits
from regraft.image.png_chunks import SIGNATURE, bits_a_channel, strip_metadata
from regraft.image.resize import cut_crop, cut_window, needed_part, smallest_useful_size, smallest_useful_size_of_window
from regraft.image.spec import Crop, ImageSpec, Window

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")

Size: TypeAlias = tuple[int, int]
LeastSize: TypeAlias = Callable[[Size], Size]
"""The least size to decode to, by the size of an upright picture."""
NeededPart: TypeAlias = Callable[[Size], tuple[int, int, int, int]]
"""The needed part (left, top, right, bottom), by the size of an upright picture."""

_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING: Final = (5, 6, 7, 8)
"""EXIF orientations of pictures stored on their side."""

_COLOURS: Final = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_HARMLESS: Final = ("Invalid SOS parameters", "Unknown Adobe color transform code", "Warning: unknown JFIF revision")
_SPARE: Final = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
_MOST_SPARE_BYTES: Final = 4
_JPEG_START: Final = b"\xff\xd8"
_JPEG_END: Final = b"\xff\xd9"

_NEW_SUBFILE_TYPE: Final = 254
_REDUCED: Final = 1
_JPEG_TABLES: Final = 347
_SUBSAMPLING: Final = 530
_DNG_VERSION: Final = 50706
_PLANAR: Final = 2
_PREDICTED: Final = ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "zstd", "lzma")

_ROWS_AT_ONCE: Final = 64
_FEWEST_BITS: Final = 9
_SENSOR_BITS: Final = 12

# Pillow's own bomb check warns through process-wide state; `ImageLimits` refuses before, per call and for certain.
Image.MAX_IMAGE_PIXELS = None
# Of text, only what may tell the orientation gets as far as Pillow.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
# Callers decide how many pictures are decoded at once.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def decode_crop(data: bytes, spec: ImageSpec, limits: ImageLimits | None = None) -> Crop:
    """Decode a picture and cut the crop of a spec.

    JPEG, PNG, WebP, BMP, GIF, TIFF and AVIF (first frame); ``docs/images.md`` has every colour model. EXIF orientation
    is applied; transparency is laid on white; CMYK is converted; 16-bit grey keeps the high byte of the bits in use;
    32-bit grey has no defined range and is refused, and so is whatever is damaged. Large JPEGs are decoded at the
    smallest DCT scale that is still at least twice the target. Thread-safe.

    Args:
        data: the encoded picture.
        spec: the rule.
        limits: the most bytes and pixels accepted; those of `configured_limits` if not given.

    Returns:
        uint8 [crop_px, crop_px, 3], RGB, C-contiguous.

    Raises:
        InvalidImageError: the bytes are no such picture, or over the limits; the text says which.
    """
    rgb = read_rgb(
        data, limits or configured_limits(), partial(smallest_useful_size, spec=spec), partial(needed_part, spec=spec)
    )
    return cut_crop(rgb, spec)


def decode_window(data: bytes, spec: ImageSpec, window: Window, limits: ImageLimits | None = None) -> Crop:
    """Decode a picture and make a crop of a part.

    For training only. ``pad`` scales the part's long side to the crop's and fills up with grey; the other rules scale
    both sides, whatever its shape; ``resize_px`` plays no part. All else, errors too, is as of `decode_crop`.
    """
    least = partial(smallest_useful_size_of_window, spec=spec, window=window)
    return cut_window(read_rgb(data, limits or configured_limits(), least), spec, window)


def read_rgb(data: bytes, limits: ImageLimits, least: LeastSize, needed: NeededPart | None = None) -> Image.Image:
    """Decode a picture to upright RGB, whole or not at all.

    Args:
        data: the encoded picture.
        limits: the most bytes and pixels accepted.
        least: how far a JPEG may be scaled down while it is decoded.
        needed: outside this part of the upright picture, pixels that are not opaque may be anything; all of it if None.

    Returns:
        The first frame, as RGB: transparency laid on white, CMYK converted, 16 bits a channel brought to 8.

    Raises:
        InvalidImageError: the bytes are no such picture, or over the limits; the text says which.
    """
    with _opened(data, limits) as image:
        orientation = _orientation(image)
        if image.format in ("JPEG", "MPO"):
            lying = orientation in _LYING
            size = least(image.size[::-1] if lying else image.size)
            pixels = _jpeg(image, data, size[::-1] if lying else size)
        else:
            pixels = _loaded(image, data)
        bits = _bits(image, data)
        if pixels.has_transparency_data and not pixels.mode.startswith("I;16"):
            if bits > 8:
                _check_levels(pixels)
            return _on_white(_turned(pixels, orientation), needed)
        return _turned(_to_rgb(pixels, bits), orientation)


def read_header(data: bytes, limits: ImageLimits) -> tuple[str, Size]:
    """Return format, and width and height as stored, without decoding.

    Raises:
        InvalidImageError: the bytes are no such picture, or over the limits; the text says which.
    """
    with _opened(data, limits) as image:
        return image.format or "", image.size


def upright_size(data: bytes, limits: ImageLimits | None = None) -> Size:
    """Return width and height of the upright picture, mostly without decoding.

    Raises:
        InvalidImageError: the bytes are no such picture, or over the limits; the text says which.
    """
    with _opened(data, limits or configured_limits()) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in _LYING else (width, height)


@contextmanager
def _opened(data: bytes, limits: ImageLimits) -> Iterator[ImageFile.ImageFile]:
    """Open a picture within limits; errors inside become `InvalidImageError`."""
    if not data:
        raise InvalidImageError("the image is empty (0 bytes)")
    if len(data) > limits.max_bytes:
        raise InvalidImageError(f"the image has {len(data):,} bytes; the limit is {limits.max_bytes:,}")
    try:
        image = Image.open(io.BytesIO(strip_metadata(data) if data.startswith(SIGNATURE) else data), formats=FORMATS)
        _check_size(image, limits)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_tiff(image, data)
        yield image
    except InvalidImageError:
        raise
    except UnidentifiedImageError:
        raise InvalidImageError(_why_unidentified(data)) from None
    except MemoryError:
        raise
    except Exception as error:
        raise InvalidImageError(f"the image cannot be decoded: {error or type(error).__name__}") from error


def _why_unidentified(data: bytes) -> str:
    if kind := unsupported_kind(data):
        return kind
    if kind := format_of(data):
        return (
            f"the image cannot be decoded: it begins like {kind}, but its header is damaged or of a kind not read here"
        )
    return f"not a picture in a format that is read here ({', '.join(FORMATS)})"


def _check_size(image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise InvalidImageError(f"the image is {width} x {height} px")
    if width * height > limits.max_pixels:
        raise InvalidImageError(
            f"the image is {width} x {height} px; the limit is {limits.max_pixels:,} pixels in all "
            "(REGRAFT_MAX_IMAGE_PIXELS): scale it down"
        )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation left to apply; damaged EXIF has none."""
    if image.format == "TIFF":
        return 1
    try:
        # Not the PNG's own method, which decodes the picture to look for EXIF behind it; here it is in front.
        return int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF makes Pillow raise anything; no pixel has been decoded yet
        return 1


def _jpeg(image: Image.Image, data: bytes, least: Size) -> Image.Image:
    """Decode an opened JPEG, not scaled below ``least``."""
    scans = read_scans(data)
    if scans.number > MOST_SCANS:
        raise InvalidImageError(f"its JPEG has more than {MOST_SCANS} scans, each of which takes as long: save it anew")
    whole = image.size
    image.draft(None, least)
    width, height = (0, 0) if image.size == whole else image.size
    pixels = _strictly(data, _COLOURS[image.mode], width, height)
    if pixels.shape[1::-1] != image.size:
        raise InvalidImageError("the image cannot be decoded: it has two sizes")
    if not scans.are_all_there:
        raise InvalidImageError("the image cannot be decoded: scans of its JPEG are missing")
    if image.mode == "CMYK":
        return Image.fromarray(255 - pixels, "CMYK")  # as Adobe stores it
    return Image.fromarray(pixels[..., 0] if image.mode == "L" else pixels)


def _strictly(data: bytes, colours: str, width: int = 0, height: int = 0) -> npt.NDArray[np.uint8]:
    """Decode a JPEG; missing or senseless data are an error."""

    def decode(*, strict: bool) -> npt.NDArray[np.uint8]:
        return np.asarray(simplejpeg.decode_jpeg(data, colours, min_width=width, min_height=height, strict=strict))

    try:
        return decode(strict=True)
    except ValueError as error:
        if not _is_harmless(str(error), data):
            raise
    return decode(strict=False)


def _is_harmless(warning: str, data: bytes) -> bool:
    """Tell warnings about no pixel from those about damage."""
    spare = _SPARE.match(warning)
    if spare is None:
        return warning.startswith(_HARMLESS)
    count = int(spare[1])
    return count <= _MOST_SPARE_BYTES or bytes(count) + _JPEG_END in data


def _loaded(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """Load a picture by Pillow, once: a second load hides a failure."""
    covered = image.tile[0].extents if image.format == "GIF" and image.tile else None
    if covered not in (None, (0, 0, *image.size)) and "transparency" not in image.info:
        raise InvalidImageError("the image cannot be decoded: the first frame of its GIF leaves a part of it out")
    image.load()
    if image.info.get("compression") == "jpeg" and isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_jpeg_strips(image, data)
    return image


def _check_tiff(image: TiffImagePlugin.TiffImageFile, data: bytes) -> None:
    """Refuse previews, and layouts that Pillow decodes wrongly."""
    tags = image.tag_v2
    is_raw = tags.get(TiffImagePlugin.COMPRESSION, 1) == 1
    bits, is_planar = _tiff_bits(image), tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == _PLANAR
    if _DNG_VERSION in tags or tags.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED or unsupported_kind(data):
        raise InvalidImageError("camera raw is not read here, and this TIFF is its preview: develop it to JPEG or TIFF")
    if is_raw and is_planar and bits > 8:
        raise InvalidImageError(
            "a TIFF of 16 bits in separate planes is not read here: save it with the planes together"
        )
    if bits > 8 and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        raise InvalidImageError("a TIFF of 16 bits in which 0 is white is not read here: save it with 0 as black")
    if is_raw and image.mode == "YCbCr" and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        raise InvalidImageError("a TIFF of subsampled YCbCr without compression is not read here: save it as RGB")
    if tags.get(TiffImagePlugin.PREDICTOR, 1) != 1 and image.info["compression"] not in _PREDICTED:
        raise InvalidImageError("a TIFF with a predictor for this compression is not read here: save it without")
    _check_strips(image)


def _check_strips(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse a TIFF whose strips or tiles leave gaps."""
    if image.use_load_libtiff:  # which checks that by itself
        return
    width, height = image.size
    parts = Counter(tile.extents or (0, 0, 0, 0) for tile in image.tile)
    area = sum((right - left) * (bottom - top) for left, top, right, bottom in parts)
    if area != width * height or len(set(parts.values())) != 1:  # of every part as many as there are planes
        raise InvalidImageError("the image cannot be decoded: strips of its TIFF are missing")


def _check_jpeg_strips(image: TiffImagePlugin.TiffImageFile, data: bytes) -> None:
    """Decode the JPEGs inside a TIFF strictly, which libtiff does not."""
    tags = image.tag_v2
    tables = tags.get(_JPEG_TABLES, b"")
    is_tiled = TiffImagePlugin.TILEOFFSETS in tags
    offsets = tags[TiffImagePlugin.TILEOFFSETS if is_tiled else TiffImagePlugin.STRIPOFFSETS]
    counts = tags[TiffImagePlugin.TILEBYTECOUNTS if is_tiled else TiffImagePlugin.STRIPBYTECOUNTS]
    for offset, count in zip(offsets, counts, strict=True):
        strip = data[offset : offset + count]
        whole = tables[: -len(_JPEG_END)] + strip[len(_JPEG_START) :] if tables else strip
        _strictly(whole, "GRAY")


def _tiff_bits(image: TiffImagePlugin.TiffImageFile) -> int:
    return int(max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))))


def _bits(image: Image.Image, data: bytes) -> int:
    """Return the bits a channel that the file has."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _tiff_bits(image)
    return bits_a_channel(data) if image.format == "PNG" else 8


def _to_rgb(image: Image.Image, bits: int) -> Image.Image:
    """Convert any mode of a decoder to RGB."""
    if image.mode in ("I", "F"):
        raise InvalidImageError(
            "pixels of 32 bits or with a sign have no defined range: save the image with 8 or 16 bits a channel"
        )
    if image.mode.startswith("I;16"):
        return _grey_of_16_bits(image, bits)
    if bits > 8:
        _check_levels(image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _on_white(image: Image.Image, needed: NeededPart | None) -> Image.Image:
    """Lay a picture on white, by rows to spare memory."""
    left, top, right, bottom = needed(image.size) if needed else (0, 0, *image.size)
    rgb = Image.new("RGB", image.size, "white")
    for upper in range(top, bottom, _ROWS_AT_ONCE):
        rows = image.crop((left, upper, right, min(bottom, upper + _ROWS_AT_ONCE))).convert("RGBA")
        white = Image.new("RGBA", rows.size, "white")
        rgb.paste(Image.alpha_composite(white, rows).convert("RGB"), (left, upper))
    return rgb


def _grey_of_16_bits(image: Image.Image, bits: int) -> Image.Image:
    """Return the high byte of the bits in use, as RGB.

    All 16 are in use, or 12 where no level needs more, as many sensors have them.
    """
    levels = np.asarray(image).astype(np.uint16)  # also swaps the bytes of the big-endian variant
    highest = int(levels.max())
    if 0 < highest < 1 << _FEWEST_BITS - 1 and bits == 16:
        raise InvalidImageError(
            f"its levels of 16 bits end at {highest:,} of 65,535, and nothing says how bright that is: "
            "save the image with 8 bits a channel"
        )
    used = min(bits, _SENSOR_BITS if highest < 1 << _SENSOR_BITS else 16)
    grey = Image.fromarray((levels >> used - 8).astype(np.uint8)).convert("RGB")
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.paste("white", mask=Image.fromarray(levels == clear))
    return grey


def _check_levels(image: Image.Image) -> None:
    """Refuse 16 bits a channel with a near-empty high byte."""
    colours = image.getbands()[: 4 if image.mode == "CMYK" else 3]
    highest = max(int(image.getchannel(band).getextrema()[1]) for band in colours if band not in "Aa")  # type: ignore[arg-type]  # of one channel: two numbers
    if highest < 1 << _SENSOR_BITS - 8:
        raise InvalidImageError(
            f"of its 16 bits a channel at most {_SENSOR_BITS} are used: save the image with 8 bits a channel"
        )
