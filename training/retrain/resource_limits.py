"""Limits of a retrain's time, memory and priority, for serving comes first."""

import logging
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

from regraft.errors import TrainingError
from regraft.stores.recovery import OUT_OF_MEMORY

_NICENESS: Final = 10
_FIRST_TO_DIE: Final = "1000"
_STATM: Final = Path("/proc/self/statm")
_LOOK_EVERY_S: Final = 0.1
_GRACE_S: Final = 3.0

log = logging.getLogger("regraft.retrain")


class _Stopped(BaseException):
    """Signal of a limit, which no handler of `Exception` stops."""


def lower_priority(cpus: int = 0) -> None:
    """Yield the machine's CPUs and memory to other processes.

    Args:
        cpus: how many it may use; 0 for all that it has.
    """
    os.nice(_NICENESS)
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_DIE)
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cpus:])


@contextmanager
def limited(minutes: float, memory_mb: int = 0, before_exit: Callable[[str], object] = log.error) -> Iterator[None]:
    """Interrupt the block beyond a time or memory.

    It works in the main thread alone.

    Memory is what the process has for itself and not from a file, as a look at /proc ten times a second finds it. Where
    there is no /proc, as on macOS, it has no limit. A limit of the system's own (RLIMIT_DATA) would count what threads
    reserve and never touch, and native code dies of it, or hangs.

    Native code is interrupted only when it returns. Where it does not within a few seconds and takes too much memory,
    the process ends, with exit code `OUT_OF_MEMORY`.

    Args:
        minutes: the longest that it may take.
        memory_mb: the most megabytes (2^20 bytes) that the process may have; 0 for any.
        before_exit: called in another thread with the reason before the process ends by itself.

    Raises:
        TrainingError: it took longer, or more.
    """
    if memory_mb and (before_mb := _private_mb()) > memory_mb:
        raise TrainingError(_too_much(memory_mb, before_mb))
    why = f"it took longer than its limit of {minutes:g} minutes"
    over, stopped = threading.Event(), threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        if not (over.is_set() or stopped.is_set()):
            stopped.set()
            raise _Stopped

    def interrupt(reason: str) -> None:
        nonlocal why
        why = reason
        signal.pthread_kill(main, signal.SIGALRM)

    main, before = threading.get_ident(), signal.signal(signal.SIGALRM, stop)
    watchdog = threading.Thread(target=_watch_memory, args=(memory_mb, over, interrupt, before_exit), daemon=True)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
            if memory_mb:
                watchdog.start()
            yield
        finally:
            over.set()
    except _Stopped:
        raise TrainingError(why) from None
    finally:
        over.set()  # the signal may have come before the line above
        signal.setitimer(signal.ITIMER_REAL, 0)
        if watchdog.is_alive():
            watchdog.join()  # or its signal could find nobody to handle it
        signal.signal(signal.SIGALRM, before)


def _watch_memory(
    limit_mb: int, over: threading.Event, interrupt: Callable[[str], None], before_exit: Callable[[str], object]
) -> None:
    """Interrupt the block beyond its memory, or end the process."""
    while (used_mb := _private_mb()) <= limit_mb:
        if over.wait(_LOOK_EVERY_S):
            return
    reason = _too_much(limit_mb, used_mb)
    interrupt(reason)
    if over.wait(_GRACE_S):
        return
    log.error("%s; it does not stop, so its process ends", reason)
    reporter = threading.Thread(target=before_exit, args=(reason,), daemon=True)  # what it needs may hang as well
    reporter.start()
    reporter.join(_GRACE_S)
    os._exit(OUT_OF_MEMORY)


def _private_mb() -> float:
    """Return this process's private memory without mapped files, 0 if unknown."""
    try:
        _, resident, shared, *_ = map(int, _STATM.read_text().split())
    except OSError:
        return 0.0
    return (resident - shared) * resource.getpagesize() / 2**20


def _too_much(limit_mb: int, used_mb: float) -> str:
    return (
        f"it needs more memory than its limit of {limit_mb} MB, and had {used_mb:.0f} MB when it was stopped: "
        "raise REGRAFT_RETRAIN_MEMORY_MB, or --memory-mb"
    )
