"""Writing files so that a crash leaves either the old state or the new one, never half of it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from regraft.errors import OperatorError, StorageError


def cache_folder() -> Path:
    """Return what is kept between runs and can be made anew: ``REGRAFT_CACHE``, else ``~/.cache/regraft``.

    Raises:
        OperatorError: neither says where.
    """
    if given := os.environ.get("REGRAFT_CACHE"):
        return Path(given)
    try:
        return Path.home() / ".cache" / "regraft"
    except RuntimeError as error:  # no HOME, and a number of a user that the system does not know
        raise OperatorError(
            "this user has no home folder for the cache: set REGRAFT_CACHE to a folder that it may write to"
        ) from error


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Write ``path`` by way of a temporary file: when this returns the bytes are on the disk, whole."""
    temporary = path.with_name(f".writing-{token_hex(16)}")
    try:
        _write_to_disk(temporary, data)
        temporary.replace(path)
        fsync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _write_to_disk(path: Path, data: bytes) -> None:
    """Write a new file without a file object: beside the lanes each of its further system calls counts."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes on ``path``, which is created; it falls with the process."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_or_none(path: Path) -> Iterator[bool]:
    """Try to take the lock of `locked` without waiting; yields whether it was taken."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn the operating system's errors into a `StorageError` that says what could not be done."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {error.strerror or error} ({error.filename or 'disk'})") from error
