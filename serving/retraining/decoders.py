"""Decoding of labelled pictures, apart from those of requests."""

import asyncio
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regraft.errors import NotNowError, RegraftError
from regraft.image.decode import decode_crop
from regraft.image.limits import DEFAULT_LIMITS, ImageLimits
from regraft.image.spec import Crop, ImageSpec
from serving.threads import Pool


@dataclass(frozen=True)
class Encoded:
    """An encoded picture.

    Attributes:
        image: its bytes.
        spec: how it is cut.
        is_wanted: asked in a thread, just before.
        most_pixels: it is refused if it turns out to have more.
    """

    image: bytes
    spec: ImageSpec
    is_wanted: Callable[[], bool] = lambda: True
    most_pixels: int = sys.maxsize


class Decoders:
    """Decoders of several pictures at once."""

    def __init__(self, threads: Pool, limits: ImageLimits = DEFAULT_LIMITS) -> None:
        """Decode in ``threads``, within ``limits``."""
        self._limits = limits
        self._threads = threads

    async def decode(self, pictures: Sequence[Encoded]) -> list[Crop | Exception]:
        """Decode pictures by `decode_crop`; an error stands in its crop's place."""
        # Each thread has its share at once: a hop between threads for every picture would cost as much as a small one.
        each = max(1, math.ceil(len(pictures) / self._threads.threads))
        shares = (pictures[start : start + each] for start in range(0, len(pictures), each))
        decoding = (self._threads.run(self._decode, share) for share in shares)
        try:
            decoded = await asyncio.gather(*decoding)
        except NotNowError as error:  # no thread could be started, or they are closed
            return [error] * len(pictures)
        return [crop for share in decoded for crop in share]

    def _decode(self, pictures: Sequence[Encoded]) -> list[Crop | Exception]:
        return [self._crop_or_error(picture) for picture in pictures]

    def _crop_or_error(self, picture: Encoded) -> Crop | Exception:
        if not picture.is_wanted():
            return RegraftError("nobody waits for this picture any more")
        try:
            return decode_crop(picture.image, picture.spec, self._limits.at_most(picture.most_pixels))
        except Exception as error:  # noqa: BLE001 - any error belongs to the sender
            return error
        except BaseException as error:  # noqa: BLE001 - a panic of native code: it shall not take the neighbours along
            return RuntimeError(repr(error))
