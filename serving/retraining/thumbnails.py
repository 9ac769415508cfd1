"""Thumbnails of pictures, kept on the disk within a bound.

::

    <folder>/<side>/ab/abcdef....jpg    the thumbnail of the picture with this SHA-256, so many pixels wide or high

They can be made anew: nothing is promised of them, and whoever deletes the folder loses time alone.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

from regraft.errors import NotFoundError
from regraft.files import storage_errors
from regraft.image.encode import thumbnail
from regraft.image.limits import ImageLimits
from regraft.image.spec import ImageSpec
from regraft.stores.examples import ExamplesStore
from serving.inference.picture_memory import PictureMemory
from serving.inference.shares import Shares
from serving.telemetry.metrics import Metrics
from serving.threads import Threads

MOST: Final = 256
"""Pictures of one request."""
LARGEST_PX: Final = 256
SMALLEST_PX: Final = 16
_JPEG_END: Final = b"\xff\xd9"
_KEPT_PART: Final = 0.9
"""Of the bound, so that not every new thumbnail looks for an old one to drop."""


class ThumbnailCache:
    """Thread-safe files of thumbnails; the longest unused are dropped."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Keep thumbnails in ``folder``, within ``most_bytes``; none if 0.

        The folder is made with the first one.
        """
        self._folder = folder
        self._most_bytes = most_bytes
        self._sizes: OrderedDict[Path, int] | None = None
        self._total_bytes = 0
        self._lock = threading.Lock()

    def get(self, sha256: str, side_px: int) -> bytes | None:
        """Return a thumbnail if it is there, whole."""
        path = self._path(sha256, side_px)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if not data.endswith(_JPEG_END):  # a power cut came between
            return None
        with self._lock:
            if self._sizes is not None and path in self._sizes:
                self._sizes.move_to_end(path)
        return data

    def put(self, sha256: str, side_px: int, data: bytes) -> None:
        """Keep a thumbnail, as far as the disk allows."""
        if not self._most_bytes:
            return
        path = self._path(sha256, side_px)
        temporary = path.with_name(f".writing-{token_hex(8)}")
        with suppress(OSError):  # a full disk makes a cache slow, and nothing worse
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            for dropped in self._count(path, len(data)):
                dropped.unlink(missing_ok=True)

    def _count(self, path: Path, size_bytes: int) -> list[Path]:
        """Count a file, and return those that are to be dropped."""
        with self._lock:
            if self._sizes is None:
                self._sizes = self._read_folder()
                self._total_bytes = sum(self._sizes.values())
            self._total_bytes += size_bytes - self._sizes.pop(path, 0)
            self._sizes[path] = size_bytes
            dropped: list[Path] = []
            if self._total_bytes > self._most_bytes:
                while self._sizes and self._total_bytes > _KEPT_PART * self._most_bytes:
                    oldest, freed_bytes = self._sizes.popitem(last=False)
                    self._total_bytes -= freed_bytes
                    dropped.append(oldest)
            return dropped

    def _read_folder(self) -> "OrderedDict[Path, int]":
        """Return the files of an earlier process with their sizes, oldest first."""
        found: list[tuple[float, Path, int]] = []
        for path in self._folder.glob("*/*/*"):
            with suppress(OSError):  # another process dropped it
                status = path.stat()
                found.append((status.st_mtime, path, status.st_size))
        return OrderedDict((path, size) for _, path, size in sorted(found))

    def _path(self, sha256: str, side_px: int) -> Path:
        return self._folder / str(side_px) / sha256[:2] / f"{sha256}.jpg"


class Thumbnails:
    """A maker of thumbnails; use from one event loop.

    Those of all callers together are made by as many threads as decode labelled pictures, within the memory that
    pictures may take; what never fits there, or is no picture any more, is an error of its own.
    """

    def __init__(
        self,
        examples: ExamplesStore,
        cache: ThumbnailCache,
        threads: Threads,
        limits: ImageLimits,
        metrics: Metrics,
        memory: Shares | None = None,
    ) -> None:
        """Make thumbnails of ``examples``; ``memory`` as in `serving.inference.picture_memory.PictureMemory`."""
        self._counter = metrics.thumbnails
        self._examples = examples
        self._cache = cache
        self._threads = threads
        self._limits = limits
        self._memory = PictureMemory(memory, limits, threads.pictures)
        self._turns = asyncio.Semaphore(threads.pictures.threads)

    async def get(self, hashes: Sequence[str], side_px: int, caller: str) -> dict[str, bytes | Exception]:
        """Return JPEGs by hash, and an error where there is none.

        Args:
            hashes: SHA-256 of pictures, whole.
            side_px: the longer side of a thumbnail; smaller pictures stay as they are.
            caller: whose share of the memory it takes.
        """
        found: Mapping[str, bytes | None] = await self._threads.database.run(self._cached, hashes, side_px)
        missing = [sha256 for sha256, data in found.items() if data is None]
        made = await asyncio.gather(
            *(self._make(sha256, side_px, caller) for sha256 in missing), return_exceptions=True
        )
        outcomes = [_error_of_one(outcome) for outcome in made]
        failed = sum(isinstance(outcome, Exception) for outcome in outcomes)
        counts = {"cached": len(found) - len(missing), "made": len(made) - failed, "failed": failed}
        for outcome, count in counts.items():
            self._counter.labels(outcome).inc(count)
        cached = {sha256: data for sha256, data in found.items() if data is not None}
        return {**cached, **dict(zip(missing, outcomes, strict=True))}

    def _cached(self, hashes: Sequence[str], side_px: int) -> dict[str, bytes | None]:
        return {sha256: self._cache.get(sha256, side_px) for sha256 in hashes}

    async def _make(self, sha256: str, side_px: int, caller: str) -> bytes:
        async with self._turns:
            data = await self._threads.database.run(self._read, sha256)
            cost = await self._memory.cost(data, ImageSpec("pad", side_px, side_px))
            with await self._memory.take([cost], caller, patient=True):
                small = await self._threads.pictures.run(thumbnail, data, side_px, self._limits)
            await self._threads.database.run(self._cache.put, sha256, side_px, small)
        return small

    def _read(self, sha256: str) -> bytes:
        with storage_errors("cannot read the picture"):
            for file in (self._examples.image_file(sha256), self._examples.pool.file(sha256)):
                with suppress(FileNotFoundError):
                    return file.read_bytes()
        raise NotFoundError(f"the picture of {sha256} is not in the store")


def _error_of_one(outcome: bytes | BaseException) -> bytes | Exception:
    """Return an outcome, a panic of native code as an error.

    It shall not take the neighbours along.
    """
    if isinstance(outcome, asyncio.CancelledError):
        raise outcome
    return outcome if isinstance(outcome, (bytes, Exception)) else RuntimeError(repr(outcome))
