"""Pictures for people: thumbnails and PNGs."""

import io
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from regraft.image.decode import read_rgb
from regraft.image.limits import ImageLimits, configured_limits
from regraft.image.resize import smallest_useful_size
from regraft.image.spec import ImageSpec


def thumbnail(data: bytes, side_px: int, limits: ImageLimits | None = None) -> bytes:
    """Return a JPEG of the whole upright picture, for people.

    Its long side is at most ``side_px``. What `decode_crop` accepts, this accepts. Comments and EXIF of the original
    are not carried over.

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
    """Encode uint8 pixels, [H, W] or [H, W, 3], as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
