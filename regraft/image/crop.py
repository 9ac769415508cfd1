"""Bytes of a picture to the uint8 crop that the network sees: THE preprocessing.

Training, evaluation and serving all call `decode_crop`, so that they cannot disagree; `decode_window` cuts the other
windows that training looks through. Normalisation is not here: it lives in the ONNX graph. `regraft.image.decode`
decodes, ``cykooz_resizer`` (Rust's ``fast_image_resize``) resizes.
"""

import hashlib
import io
import json
import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final, Literal, TypeAlias, get_args

import cykooz_resizer
import numpy as np
import numpy.typing as npt
from PIL import Image

from regraft.errors import ArtifactError
from regraft.image.decode import DECODER_VERSION, read_rgb, read_size
from regraft.image.limits import Limits, configured_limits

Crop: TypeAlias = npt.NDArray[np.uint8]
"""uint8 [crop_px, crop_px, 3], RGB."""

ResizeRule = Literal["crop", "squash", "pad"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]

RULE_VERSION: Final = 2
"""Raised whenever the same bytes and spec would give other pixels: stored crops and embeddings then no longer match."""

_PAD_LEVEL: Final = 128
_ROUNDING: Final = 1e-9
_FILTERS: Final = {
    "bilinear": cykooz_resizer.FilterType.bilinear,
    "bicubic": cykooz_resizer.FilterType.catmull_rom,  # Pillow's kernel of that name, a = -0.5
    "lanczos": cykooz_resizer.FilterType.lanczos3,
}
_WIDEST_KERNEL: Final = 3
"""Pixels that the widest of them, Lanczos, looks at to each side."""


@dataclass(frozen=True)
class ImageSpec:
    """How a picture becomes a crop; stored in the model card, so that every consumer does the same.

    Attributes:
        resize: ``crop`` scales the short side to ``resize_px`` and keeps the middle; ``squash`` scales both sides
            to ``resize_px``, whatever the shape; ``pad`` scales the long side and fills up with grey (128).
        resize_px: side after scaling, in pixels; at least ``crop_px``.
        crop_px: side of the square that is cut from the middle, in pixels.
        interpolation: kernel of the antialiased resize.
        rule_version: the version of this module's rule that the model was trained with.
    """

    resize: ResizeRule = "crop"
    resize_px: int = 256
    crop_px: int = 224
    interpolation: Interpolation = "bicubic"
    rule_version: int = RULE_VERSION

    def __post_init__(self) -> None:
        """Refuse values that no picture could satisfy."""
        if self.resize not in get_args(ResizeRule):
            raise ArtifactError(f"image spec: resize is {self.resize!r}, not one of {get_args(ResizeRule)}")
        if self.interpolation not in _FILTERS:
            raise ArtifactError(f"image spec: interpolation is {self.interpolation!r}, not one of {tuple(_FILTERS)}")
        if not 1 <= self.crop_px <= self.resize_px <= 4096:
            raise ArtifactError(
                f"image spec: need 1 <= crop_px <= resize_px <= 4096, not {self.crop_px} and {self.resize_px}"
            )
        if self.rule_version != RULE_VERSION:
            raise ArtifactError(
                f"image spec: made with image rule {self.rule_version}, this Regraft has rule {RULE_VERSION}: "
                "`regraft upgrade` fits it anew, or serve it with the Regraft that made it"
            )

    def resized_by(self, rule: ResizeRule | None) -> "ImageSpec":
        """Return the spec with another rule, itself for None.

        By ``squash`` and ``pad`` all of the picture is seen.
        """
        if rule is None or rule == self.resize:
            return self
        return replace(self, resize=rule, resize_px=self.resize_px if rule == "crop" else self.crop_px)

    def digest(self) -> str:
        """Return the SHA-256 (hex) by which crops made under this spec, by this decoder, are told from others."""
        named = {**asdict(self), "decoder_version": DECODER_VERSION}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Window:
    """A part of the upright picture, in shares of its width and height: 0 to 1, from the left and from the top."""

    left: float
    top: float
    width: float
    height: float

    def __post_init__(self) -> None:
        """Refuse a window that is empty or reaches beyond the picture by more than rounding."""
        right, bottom = self.left + self.width, self.top + self.height
        inside = min(self.left, self.top) >= 0 and max(right, bottom) <= 1 + _ROUNDING
        if not (inside and self.width > 0 and self.height > 0):
            raise ValueError(f"{self} is no part of a picture")


@dataclass(frozen=True)
class _Box:
    """The part of the source that the crop keeps, in pixels of the source, and the size it gets."""

    left: float
    top: float
    width: float
    height: float
    width_px: int
    height_px: int


_Part: TypeAlias = tuple[float, float, float, float]
"""Left, top, width and height, in pixels of the picture."""


def decode_crop(data: bytes, spec: ImageSpec, limits: Limits | None = None) -> Crop:
    """Decode one picture and cut the crop that ``spec`` describes.

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
    least, kept = partial(smallest_useful_size, spec=spec), partial(_kept_part, spec=spec)
    return _cut(read_rgb(data, limits or configured_limits(), least, kept), spec)


def decode_window(data: bytes, spec: ImageSpec, window: Window, limits: Limits | None = None) -> Crop:
    """Decode one picture and make a crop of a part of it.

    For training only. The rule does to the part what it does to a whole picture.

    ``pad`` scales the part's long side to the crop's and fills up with grey; the other rules scale both sides, whatever
    its shape. ``resize_px`` plays no part. Formats, conversions, errors and thread safety are those of `decode_crop`. A
    large JPEG is decoded at the smallest DCT scale at which the window is still at least twice the crop's size.

    Args:
        data: the encoded picture.
        spec: the rule that the network's own crops are made by.
        window: the part, after the EXIF orientation was applied.
        limits: the most bytes and pixels accepted; those of `configured_limits` if not given.

    Returns:
        uint8 [crop_px, crop_px, 3], RGB, C-contiguous.

    Raises:
        InvalidImageError: the bytes are no such picture, or over the limits; the text says which.
    """
    image = read_rgb(data, limits or configured_limits(), partial(_useful_size_of_window, spec=spec, window=window))
    return _fill(image, _box_of(image.size, window, spec), spec)


def upright_size(data: bytes, limits: Limits | None = None) -> tuple[int, int]:
    """Return width and height in pixels of the upright picture, mostly without decoding it.

    Raises:
        InvalidImageError: the bytes are no such picture, or over the limits; the text says which.
    """
    return read_size(data, limits or configured_limits())


def thumbnail(data: bytes, side_px: int, limits: Limits | None = None) -> bytes:
    """Return a JPEG of the whole upright picture whose long side is at most ``side_px``; for people, not for networks.

    What `decode_crop` accepts, this accepts. Comments and EXIF of the original are not carried over.

    Raises:
        InvalidImageError: the bytes are no such picture, or over the limits; the text says which.
    """
    whole = ImageSpec("pad", side_px, side_px)
    small = read_rgb(data, limits or configured_limits(), partial(smallest_useful_size, spec=whole))
    small.thumbnail((side_px, side_px), Image.Resampling.BICUBIC, reducing_gap=None)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(small)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode uint8 pixels, [H, W] grey or [H, W, 3] RGB, as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def smallest_useful_size(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """Return the size below which the decoder must not scale: twice what the resize will make of the whole picture."""
    width, height = size
    if spec.resize == "squash":
        return 2 * spec.resize_px, 2 * spec.resize_px
    side = min(size) if spec.resize == "crop" else max(size)
    scale = 2 * spec.resize_px / side
    return math.ceil(width * scale), math.ceil(height * scale)


def _useful_size_of_window(size: tuple[int, int], spec: ImageSpec, window: Window) -> tuple[int, int]:
    """Return likewise twice what makes the window as large as the crop."""
    width, height = size
    if spec.resize == "pad":
        scale = 2 * spec.crop_px / max(width * window.width, height * window.height)
        return math.ceil(width * scale), math.ceil(height * scale)
    return math.ceil(2 * spec.crop_px / window.width), math.ceil(2 * spec.crop_px / window.height)


def _kept_part(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int, int, int]:
    """Return the part of a picture that its crop depends on."""
    box = _middle(size, spec)
    left, columns = _span(box.left, box.width, box.width_px, size[0])
    top, rows = _span(box.top, box.height, box.height_px, size[1])
    return left, top, left + columns, top + rows


def _middle(size: tuple[int, int], spec: ImageSpec) -> _Box:
    width, height = size
    kept = spec.crop_px / spec.resize_px
    if spec.resize == "crop":
        side = min(width, height) * kept
        return _centred(size, side, side, spec.crop_px, spec.crop_px)
    if spec.resize == "squash":
        return _centred(size, width * kept, height * kept, spec.crop_px, spec.crop_px)
    side = max(width, height) * kept
    seen_width, seen_height = min(width, side), min(height, side)
    return _centred(size, seen_width, seen_height, *_fitted(seen_width, seen_height, spec.crop_px / side))


def _centred(size: tuple[int, int], width: float, height: float, width_px: int, height_px: int) -> _Box:
    return _Box((size[0] - width) / 2, (size[1] - height) / 2, width, height, width_px, height_px)


def _fitted(width: float, height: float, scale: float) -> tuple[int, int]:
    """Return the scaled sides in whole pixels, at least one."""
    return max(1, round(width * scale)), max(1, round(height * scale))


def _box_of(size: tuple[int, int], window: Window, spec: ImageSpec) -> _Box:
    """Return the box of a window, within the picture to the last bit."""
    left, top = window.left * size[0], window.top * size[1]
    width, height = min(window.width * size[0], size[0] - left), min(window.height * size[1], size[1] - top)
    sides = spec.crop_px, spec.crop_px
    if spec.resize == "pad":
        sides = _fitted(width, height, spec.crop_px / max(width, height))
    return _Box(left, top, width, height, *sides)


def _cut(image: Image.Image, spec: ImageSpec) -> Crop:
    """Resize just the window that the crop keeps."""
    return _fill(image, _middle(image.size, spec), spec)


def _fill(image: Image.Image, box: _Box, spec: ImageSpec) -> Crop:
    """Resize a part of a picture, with grey around what is smaller."""
    resized = _resize(image, box, spec.interpolation)
    if resized.size == (spec.crop_px, spec.crop_px):
        return np.array(resized)
    canvas = np.full((spec.crop_px, spec.crop_px, 3), _PAD_LEVEL, np.uint8)
    top, left = (spec.crop_px - box.height_px) // 2, (spec.crop_px - box.width_px) // 2
    canvas[top : top + box.height_px, left : left + box.width_px] = np.asarray(resized)
    return canvas


def _resize(image: Image.Image, box: _Box, interpolation: Interpolation) -> Image.Image:
    """Resize a part of a picture, in one antialiased pass; where it becomes larger, in two, one direction each.

    In one pass cykooz_resizer 4.0.1 reads out of bounds, which ends the process, where it enlarges and an outermost
    pixel of the result falls on the middle of one of the source. Two passes in Pillow's order also agree with Pillow,
    which rounds between them: in the other one sharp edges differ by up to 20 levels.
    """
    part, size = (box.left, box.top, box.width, box.height), (box.width_px, box.height_px)
    if box.width >= box.width_px and box.height >= box.height_px:
        return _convolve(image, part, size, interpolation)
    first: _Part
    second: _Part
    width, height = image.size
    if box.height_px < height and box.height_px * width < box.width_px * height:
        left, columns = _span(box.left, box.width, box.width_px, width)
        first, between = (left, box.top, columns, box.height), (columns, box.height_px)
        second = (box.left - left, 0, box.width, box.height_px)
    else:
        top, rows = _span(box.top, box.height, box.height_px, height)
        first, between = (box.left, top, box.width, rows), (box.width_px, rows)
        second = (0, box.top - top, box.width_px, box.height)
    return _convolve(_convolve(image, first, between, interpolation), second, size, interpolation)


def _span(start: float, length: float, count: int, end: int) -> tuple[int, int]:
    """Return the first pixel that ``count`` samples of a stretch look at, and how many of all that end at ``end``."""
    reach = math.ceil(_WIDEST_KERNEL * max(1.0, length / count)) + 1
    first = max(0, math.floor(start) - reach)
    return first, min(end, math.ceil(start + length) + reach) - first


def _convolve(image: Image.Image, part: _Part, size: tuple[int, int], interpolation: Interpolation) -> Image.Image:
    """Resize a part of an RGB picture to ``size``."""
    options = cykooz_resizer.ResizeOptions(
        resize_alg=cykooz_resizer.ResizeAlg.convolution(_FILTERS[interpolation]),
        crop_box=cykooz_resizer.CropBox(*part),
    )
    resized = Image.new("RGB", size)
    # A resizer keeps scratch buffers and is not thread-safe; making one costs microseconds.
    cykooz_resizer.Resizer().resize_pil(image, resized, options)
    return resized
