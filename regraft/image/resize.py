"""Resizing to a crop: by crop, squash, pad or window.

``cykooz_resizer`` (Rust's ``fast_image_resize``) resizes, antialiased; only the part that is kept is looked at.
"""

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import cykooz_resizer
import numpy as np
from PIL import Image

from regraft.image.spec import Crop, ImageSpec, Interpolation, Window

_PAD_LEVEL: Final = 128
_FILTERS: Final = {
    "bilinear": cykooz_resizer.FilterType.bilinear,
    "bicubic": cykooz_resizer.FilterType.catmull_rom,  # Pillow's kernel of that name, a = -0.5
    "lanczos": cykooz_resizer.FilterType.lanczos3,
}
_WIDEST_KERNEL: Final = 3
"""Pixels that the widest kernel, Lanczos, reaches to each side."""


@dataclass(frozen=True)
class _Box:
    """A part of the source, in its pixels, and the target's size."""

    left: float
    top: float
    width: float
    height: float
    width_px: int
    height_px: int


_Part: TypeAlias = tuple[float, float, float, float]
"""Left, top, width and height, in pixels of the picture."""


def cut_crop(image: Image.Image, spec: ImageSpec) -> Crop:
    """Cut the crop of an upright RGB picture."""
    return _fill(image, _middle(image.size, spec), spec)


def cut_window(image: Image.Image, spec: ImageSpec, window: Window) -> Crop:
    """Cut a window out of an upright RGB picture."""
    return _fill(image, _box_of(image.size, window, spec), spec)


def smallest_useful_size(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """Return twice the resized size, below which no decoder may scale."""
    width, height = size
    if spec.resize == "squash":
        return 2 * spec.resize_px, 2 * spec.resize_px
    side = min(size) if spec.resize == "crop" else max(size)
    scale = 2 * spec.resize_px / side
    return math.ceil(width * scale), math.ceil(height * scale)


def smallest_useful_size_of_window(size: tuple[int, int], spec: ImageSpec, window: Window) -> tuple[int, int]:
    """Return the size at which a window is twice the crop's."""
    width, height = size
    if spec.resize == "pad":
        scale = 2 * spec.crop_px / max(width * window.width, height * window.height)
        return math.ceil(width * scale), math.ceil(height * scale)
    return math.ceil(2 * spec.crop_px / window.width), math.ceil(2 * spec.crop_px / window.height)


def needed_part(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int, int, int]:
    """Return the part, left to bottom, that a picture's crop needs."""
    box = _middle(size, spec)
    left, columns = _span(box.left, box.width, box.width_px, size[0])
    top, rows = _span(box.top, box.height, box.height_px, size[1])
    return left, top, left + columns, top + rows


def _middle(size: tuple[int, int], spec: ImageSpec) -> _Box:
    width, height = size
    share = spec.crop_px / spec.resize_px
    if spec.resize == "crop":
        side = min(width, height) * share
        return _centred(size, side, side, spec.crop_px, spec.crop_px)
    if spec.resize == "squash":
        return _centred(size, width * share, height * share, spec.crop_px, spec.crop_px)
    side = max(width, height) * share
    across, down = min(width, side), min(height, side)
    return _centred(size, across, down, *_fitted(across, down, spec.crop_px / side))


def _centred(size: tuple[int, int], width: float, height: float, width_px: int, height_px: int) -> _Box:
    return _Box((size[0] - width) / 2, (size[1] - height) / 2, width, height, width_px, height_px)


def _fitted(width: float, height: float, scale: float) -> tuple[int, int]:
    """Return scaled sides in whole pixels, at least one."""
    return max(1, round(width * scale)), max(1, round(height * scale))


def _box_of(size: tuple[int, int], window: Window, spec: ImageSpec) -> _Box:
    """Return a window's box, within the picture to the last bit."""
    left, top = window.left * size[0], window.top * size[1]
    width, height = min(window.width * size[0], size[0] - left), min(window.height * size[1], size[1] - top)
    sides = spec.crop_px, spec.crop_px
    if spec.resize == "pad":
        sides = _fitted(width, height, spec.crop_px / max(width, height))
    return _Box(left, top, width, height, *sides)


def _fill(image: Image.Image, box: _Box, spec: ImageSpec) -> Crop:
    """Resize a part of a picture, on a grey canvas."""
    resized = _resize(image, box, spec.interpolation)
    if resized.size == (spec.crop_px, spec.crop_px):
        return np.array(resized)
    canvas = np.full((spec.crop_px, spec.crop_px, 3), _PAD_LEVEL, np.uint8)
    top, left = (spec.crop_px - box.height_px) // 2, (spec.crop_px - box.width_px) // 2
    canvas[top : top + box.height_px, left : left + box.width_px] = np.asarray(resized)
    return canvas


def _resize(image: Image.Image, box: _Box, interpolation: Interpolation) -> Image.Image:
    """Resize a part of a picture, antialiased.

    It takes one pass; where the picture becomes larger two, one direction each. In one pass cykooz_resizer 4.0.1 reads
    out of bounds, which ends the process, where it enlarges and an outermost pixel of the result falls on the middle of
    one of the source. Two passes in Pillow's order also agree with Pillow, which rounds between them: in the other one
    sharp edges differ by up to 20 levels.
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
    """Return first pixel and count of those that ``count`` samples need."""
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
