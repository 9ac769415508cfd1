"""Memory budget of all pictures in the server, encoded and decoded."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from regraft.errors import InvalidImageError, InvalidRequestError, OverloadedError
from regraft.image.decoding_cost import DecodingCost, quick_cost, read_cost
from regraft.image.limits import ImageLimits
from regraft.image.resize import smallest_useful_size
from regraft.image.spec import Crop, ImageSpec
from serving.inference.shares import Grant, Shares
from serving.threads import Pool

DEFAULT_BYTES: Final = 512 * 2**20
PATIENT_PART: Final = 2
"""Streams have one in so many bytes."""
_UNCHARGED_BYTES: Final = 8 * 2**20
"""Of each picture, since most pictures that are counted only wait."""
_MB: Final = 2**20
_SETTING: Final = "REGRAFT_PICTURE_MEMORY_MB"


class PictureMemory:
    """A budget of memory for pictures; use from one event loop."""

    def __init__(self, shares: Shares | None, limits: ImageLimits, threads: Pool) -> None:
        """Share out memory for pictures.

        Args:
            shares: of memory, in bytes; half a gigabyte of its own if None.
            limits: of a picture.
            threads: read the headers that take a while.
        """
        self._threads = threads
        self._shares = shares or Shares(DEFAULT_BYTES, PATIENT_PART)
        self._limits = limits

    async def cost(self, image: bytes | Crop, spec: ImageSpec) -> DecodingCost:
        """Return the cost of a picture, by its header.

        Raises:
            InvalidImageError: the bytes are no picture, or one that never fits; the text says which.
        """
        if not isinstance(image, bytes):
            return DecodingCost(0, 2 * image.nbytes, 0)
        cost = quick_cost(image, partial(smallest_useful_size, spec=spec))
        if cost is None:
            cost = await self._threads.run(read_cost, image, self._limits)
        if cost.pixels > self._limits.max_pixels or len(image) > self._limits.max_bytes:
            return DecodingCost(cost.pixels, len(image), 0)  # the decoder refuses it, says so, and decodes nothing
        if _charged_bytes(cost) > self._shares.most:
            raise InvalidImageError(
                f"to decode the image, {cost.pixels:,} pixels in {len(image):,} bytes, takes "
                f"{cost.memory_bytes / _MB:,.0f} MB of memory; the limit is {self._shares.most / _MB:,.0f} "
                f"({_SETTING}): scale it down, or send it as JPEG"
            )
        return cost

    def is_used_up(self, caller: str) -> bool:
        """Tell whether any picture of a single request would be refused."""
        return self._shares.is_refused(caller)

    async def take(self, costs: Sequence[DecodingCost], caller: str, *, patient: bool) -> Grant:
        """Take the cost of a request's pictures, now or in turn.

        Raises:
            InvalidRequestError: together they never fit.
            OverloadedError: there is not enough now.
        """
        wanted = sum(map(_charged_bytes, costs))
        if wanted > self._shares.most:
            raise InvalidRequestError(
                f"image: to decode the {len(costs)} pictures takes {wanted / _MB:,.0f} MB of memory; "
                f"the limit is {self._shares.most / _MB:,.0f} ({_SETTING}): send fewer at once"
            )
        grant = await self._shares.take(wanted, caller, patient=patient)
        if grant is None:
            raise OverloadedError("the server has no memory for the picture now: try again later, or another replica")
        return grant


def _charged_bytes(cost: DecodingCost) -> int:
    return cost.encoded_bytes + max(0, cost.decoded_bytes - _UNCHARGED_BYTES)
