"""Pictures named by their SHA-256, in a folder or object store.

::

    <place>/ab/abcdef...
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final, Protocol

from regraft.errors import InvalidRequestError, MissingPackageError, first_line
from regraft.files import fsync_folder, write_durably
from regraft.label_rules import image_hash

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

EXAMPLES_FOLDER: Final = ".examples"
"""Where the examples live inside a model store unless another folder is given; the dot hides it from model scanners."""

_FOLDER_URLS: Final = ("file://", "local://")
_ROOM_TO_LEAVE: Final = 64 * 2**20
"""Bytes of a disk that copies of somebody's own pictures leave to everything else."""


@dataclass(frozen=True)
class EncodedPicture:
    """An encoded picture on its way into a store.

    Attributes:
        data: its bytes, which the server has found decodable.
    """

    data: bytes

    @cached_property
    def sha256(self) -> str:
        """The hash that names the picture."""
        return image_hash(self.data)


@dataclass(frozen=True)
class Bounds:
    """The most that is kept; the first bound reached counts."""

    pictures: int = 10_000
    size_bytes: int = 2**30


class ImageFile(Protocol):
    """One picture's file: a `Path`, or its like; errors are `OSError`."""

    def exists(self) -> bool:
        """Tell whether it is there."""

    def read_bytes(self) -> bytes:
        """Return all of it."""

    def write_bytes(self, data: bytes, /) -> int:
        """Replace all of it."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove it."""


class ImageFiles(Protocol):
    """Files of pictures by hash. Safe between threads and processes."""

    def file(self, sha256: str) -> ImageFile:
        """Return the file of the picture with this hash."""

    def keep(self, sha256: str, data: bytes, *, durably: bool = True) -> None:
        """Keep a picture; if ``durably``, even through a power cut.

        Raises:
            OSError: it could not be kept.
        """

    def keep_file(self, sha256: str, file: Path, data: bytes) -> bool:
        """Keep a file's picture durably, hard-linked where that can be.

        Args:
            sha256: of ``data``.
            file: somebody's own.
            data: its bytes, read just now.

        Returns:
            Whether the file is linked, and takes no room of its own.

        Raises:
            OSError: it could not be kept.
        """

    def check_room(self, files: Mapping[str, Path]) -> None:
        """Check that `keep_file` will not fill the disk.

        Args:
            files: to be kept, by hash.

        Raises:
            OSError: copies of those that are not there yet would.
        """


def images_at(place: str | Path) -> ImageFiles:
    """Return the files in a folder, or at a URL of fsspec.

    Raises:
        InvalidRequestError: the URL makes no sense.
        MissingPackageError: fsspec, or its driver for such URLs, is not installed.
    """
    return ImageBucket(place) if isinstance(place, str) and is_remote(place) else ImageFolder(folder_of(place))


def keep_all(writers: Executor, images: ImageFiles, batch: Iterable[EncodedPicture]) -> None:
    """Keep pictures, several at once.

    Most of the time goes into waiting for the disk.

    Raises:
        OSError: one could not be kept.
    """
    list(writers.map(lambda new: images.keep(new.sha256, new.data), batch))


def keep_again(writers: Executor, images: ImageFiles, pictures: Mapping[str, Callable[[], bytes]]) -> None:
    """Keep pictures again that were removed since they were kept.

    Args:
        writers: do so, several at once.
        images: where.
        pictures: what reads the bytes of each, by hash.

    Raises:
        OSError: one could not be kept.
    """

    def keep_if_gone(sha256: str) -> None:
        if not images.file(sha256).exists():
            images.keep(sha256, pictures[sha256]())

    list(writers.map(keep_if_gone, pictures))


def example_images(place: str) -> ImageFiles:
    """Return the examples' pictures at ``place``; errors as `images_at`."""
    return images_at(f"{place.rstrip('/')}/images")


def is_remote(place: str) -> bool:
    """Tell whether a place is the URL of an object store."""
    return "://" in place and not place.startswith(_FOLDER_URLS)


def folder_of(place: str | Path) -> Path:
    """Return the folder that a path or a ``file://`` URL names."""
    if isinstance(place, Path):
        return place
    for prefix in _FOLDER_URLS:
        place = place.removeprefix(prefix)
    return Path(place)


class ImageFolder:
    """Files in a folder, written so that they survive a power cut."""

    def __init__(self, root: Path) -> None:
        """Use the folder ``root``, which is created with the first picture."""
        self.root = root

    def file(self, sha256: str) -> Path:
        """Return the path of the picture with this hash."""
        return self.root / sha256[:2] / sha256

    def keep(self, sha256: str, data: bytes, *, durably: bool = True) -> None:
        """Write a picture, unless all its bytes are there."""
        path = self.file(sha256)
        if path.exists():
            if durably:  # its writer may not have come as far as this
                fsync_folder(path.parent)
            return
        write = write_durably if durably else Path.write_bytes
        try:
            write(path, data)
        except FileNotFoundError:  # the first picture of this folder
            self._make_folder(path.parent, durably=durably)
            write(path, data)

    def _make_folder(self, folder: Path, *, durably: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if durably:
            fsync_folder(self.root)
            fsync_folder(self.root.parent)

    def keep_file(self, sha256: str, file: Path, data: bytes) -> bool:
        """Link a picture's file, or write a copy."""
        path = self.file(sha256)
        if not path.parent.exists():
            self._make_folder(path.parent, durably=True)
        with suppress(OSError):  # another file system, or one without links; or somebody else's file
            if not path.exists():
                _link(file, path, data)
        self.keep(sha256, data)
        with suppress(FileNotFoundError):  # its owner is quick
            return path.samefile(file)
        return False

    def check_room(self, files: Mapping[str, Path]) -> None:
        """Check that copies leave some room, where the files cannot be linked."""
        self.root.mkdir(parents=True, exist_ok=True)
        can_link: dict[int, bool] = {}
        need = 0
        for sha256, file in files.items():
            if self.file(sha256).exists():
                continue
            with suppress(FileNotFoundError):
                facts = file.stat()
                if facts.st_dev not in can_link:
                    can_link[facts.st_dev] = _can_link(file, self.root)
                need += 0 if can_link[facts.st_dev] else facts.st_size
        free = shutil.disk_usage(self.root).free
        if need and free - need < _ROOM_TO_LEAVE:
            text = f"copies of the pictures take {need // 2**20} MB, and {free // 2**20} MB are free"
            raise OSError(errno.ENOSPC, text, str(self.root))


def _link(file: Path, path: Path, data: bytes) -> None:
    """Link a file durably to a path, if it holds ``data``."""
    temporary = path.with_name(f".linking-{token_hex(16)}")
    try:
        os.link(file.resolve(), temporary)
        with temporary.open("rb") as linked:
            if linked.read() != data:
                return
            os.fsync(linked.fileno())
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _can_link(file: Path, folder: Path) -> bool:
    """Tell whether a file can be linked into a folder."""
    temporary = folder / f".linking-{token_hex(16)}"
    try:
        os.link(file.resolve(), temporary)
    except OSError:
        return False
    temporary.unlink()
    return True


class ImageBucket:
    """Files in an object store, which keeps what it acknowledged."""

    def __init__(self, url: str) -> None:
        """Connect to what ``url`` names; see `images_at` for the errors."""
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415 - optional
        except ImportError as error:
            raise MissingPackageError(f"{url}: object stores need fsspec: pip install 'regraft[objects]'") from error
        try:
            # Listings are not cached: another process may have added the file that we ask for.
            self._files, self._root = url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            raise MissingPackageError(f"{url}: {first_line(error)}") from error
        except ValueError as error:
            raise InvalidRequestError(f"{url}: {first_line(error)}") from error

    def file(self, sha256: str) -> "RemoteFile":
        """Return the object of the picture with this hash."""
        return RemoteFile(self._files, f"{self._root.rstrip('/')}/{sha256[:2]}/{sha256}")

    def keep(self, sha256: str, data: bytes, *, durably: bool = True) -> None:  # noqa: ARG002 - they know no other way
        """Write a picture, unless it is there with all its bytes.

        Not every store writes all or nothing.
        """
        file = self.file(sha256)
        if file.size_bytes() != len(data):
            file.write_bytes(data)

    def keep_file(self, sha256: str, file: Path, data: bytes) -> bool:  # noqa: ARG002 - as above
        """Write a picture; nothing is linked there."""
        self.keep(sha256, data)
        return False

    def check_room(self, files: Mapping[str, Path]) -> None:
        """Object stores do not fill up."""


@dataclass(frozen=True)
class RemoteFile:
    """One object of a store."""

    files: "AbstractFileSystem"
    path: str

    def __str__(self) -> str:
        """Return its path, for people."""
        return self.path

    def exists(self) -> bool:
        """Tell whether it is there."""
        return self.size_bytes() is not None

    def size_bytes(self) -> int | None:
        """Return its size, None where it is not there."""
        try:
            with _os_errors():
                return int(self.files.info(self.path)["size"])
        except FileNotFoundError:
            return None

    def read_bytes(self) -> bytes:
        """Return all of it."""
        with _os_errors():
            return bytes(self.files.cat_file(self.path))

    def write_bytes(self, data: bytes, /) -> int:
        """Write it in one request."""
        with _os_errors():
            try:
                self.files.pipe_file(self.path, data)
            except FileNotFoundError:  # what lies behind has real folders
                self.files.makedirs(self.path.rpartition("/")[0], exist_ok=True)
                self.files.pipe_file(self.path, data)
        return len(data)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove it."""
        try:
            with _os_errors():
                self.files.rm_file(self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise


@contextmanager
def _os_errors() -> Iterator[None]:
    """Make an `OSError` of any driver's exception."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(first_line(error)) from error
