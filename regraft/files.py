"""Durable files, locks between processes, paths and times as text."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import IO, Final

from regraft.cancellation import check_wanted
from regraft.errors import LockedError, OperatorError, StorageError

LOCK_PATIENCE_S: Final = 10.0
"""How long a request waits for another process; longer than any move of a champion takes."""
_SHORTEST_PAUSE_S: Final = 0.001
_LONGEST_PAUSE_S: Final = 0.05
_LONGEST_COMMAND: Final = 100


def cache_folder() -> Path:
    """Return the cache's folder: ``REGRAFT_CACHE``, else ``~/.cache/regraft``.

    It is kept between runs, and can be made anew.

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


def text_of(path: Path) -> str:
    """Return a path as text, with undecodable bytes escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def utc_now(timespec: str = "seconds") -> str:
    """Return the time in UTC, ISO 8601, as records have it."""
    return datetime.now(UTC).isoformat(timespec=timespec)


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file atomically and durably, by way of a temporary one."""
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
    """Write a new file to the disk, in few system calls."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, patience_s: float = LOCK_PATIENCE_S) -> Iterator[None]:
    """Hold an exclusive lock between processes on ``path``.

    The file is created; the lock falls with the process.

    Args:
        path: a file, by which the kernel knows the holder.
        patience_s: how long to wait for it.

    Raises:
        LockedError: somebody else holds it for longer.
        DeadlineError: nobody waits for this any more; see `regraft.cancellation`.
    """
    with path.open("a") as file:
        _wait_for(file, path, patience_s)
        check_wanted()
        yield


@contextmanager
def locked_or_none(path: Path) -> Iterator[bool]:
    """Try to take a lock without waiting; yield whether it was taken."""
    with path.open("a") as file:
        yield _try_lock(file)


def _wait_for(file: IO[str], path: Path, patience_s: float) -> None:
    """Poll for a lock; no system call waits so long."""
    began_s, pause_s = time.monotonic(), _SHORTEST_PAUSE_S
    while not _try_lock(file):
        check_wanted()
        if (waited_s := time.monotonic() - began_s) >= patience_s:
            raise LockedError(f"{_holder_of(file)} has held {path} for {waited_s:.0f} s: try again later")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder_of(file: IO[str]) -> str:
    """Name the process that holds a lock, if the kernel tells."""
    inode = os.fstat(file.fileno()).st_ino
    with suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, _, _, process, where, *_ = line.replace("->", "").split()
            if kind == "FLOCK" and where.endswith(f":{inode}") and int(process) > 0:
                command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"process {process} ({command.strip()[:_LONGEST_COMMAND]})"
    return "another process"


def file_stamp(path: Path) -> tuple[int, ...]:
    """Return what changes with a file: its time, size and inode.

    It is empty where the file cannot be looked at. Links are followed, as Kubernetes' are.
    """
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn the operating system's errors into a `StorageError` about ``what``."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {error.strerror or error} ({error.filename or 'disk'})") from error
