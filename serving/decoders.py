"""Threads that decode labelled pictures before they are kept; requests are decoded in or before their lane."""

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from regraft.image import DEFAULT_LIMITS, Crop, ImageSpec, Limits, decode_crop
from regraft.runtime import cpu_budget


class Decoders:
    """As many threads as there are CPUs; close them when done."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """Decode within ``limits``."""
        self._limits = limits
        self._threads = cpu_budget()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")

    async def decode(self, pictures: Sequence[tuple[bytes, ImageSpec]]) -> list[Crop | Exception]:
        """Decode pictures by `regraft.image.decode_crop`; what it raises for one stands in the place of its crop."""
        loop = asyncio.get_running_loop()
        # Each thread has its share at once: a hop between threads for every picture would cost as much as a small one.
        each = max(1, math.ceil(len(pictures) / self._threads))
        shares = (pictures[start : start + each] for start in range(0, len(pictures), each))
        decoded = await asyncio.gather(*(loop.run_in_executor(self._pool, self._decode, share) for share in shares))
        return [crop for share in decoded for crop in share]

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False)

    def _decode(self, pictures: Sequence[tuple[bytes, ImageSpec]]) -> list[Crop | Exception]:
        return [self._crop_or_error(image, spec) for image, spec in pictures]

    def _crop_or_error(self, image: bytes, spec: ImageSpec) -> Crop | Exception:
        try:
            return decode_crop(image, spec, self._limits)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever sent the picture
            return error
