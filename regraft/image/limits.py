"""Limits of pictures, for every part of Regraft."""

import os
from dataclasses import dataclass, replace
from typing import Final

from regraft.errors import InvalidRequestError

_LEAST: Final = 1024
_BYTES: Final = "REGRAFT_MAX_IMAGE_BYTES"
_PIXELS: Final = "REGRAFT_MAX_IMAGE_PIXELS"


@dataclass(frozen=True)
class ImageLimits:
    """The most bytes and pixels of a picture, checked before decoding."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 64_000_000

    def at_most(self, pixels: int) -> "ImageLimits":
        """Return these limits, with no more pixels than given."""
        return self if pixels >= self.max_pixels else replace(self, max_pixels=pixels)

    def environment(self) -> dict[str, str]:
        """Return the environment variables of these limits."""
        return {_BYTES: str(self.max_bytes), _PIXELS: str(self.max_pixels)}


DEFAULT_LIMITS: Final = ImageLimits()


def configured_limits() -> ImageLimits:
    """Return the limits of the environment, or the defaults.

    Raises:
        InvalidRequestError: a variable is no number of at least 1,024; the text names it.
    """
    return ImageLimits(_number(_BYTES, DEFAULT_LIMITS.max_bytes), _number(_PIXELS, DEFAULT_LIMITS.max_pixels))


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < _LEAST:
        raise InvalidRequestError(f"{variable}: {text!r}: need a whole number of at least {_LEAST:,}")
    return number
