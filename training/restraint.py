"""What a retrain may take of the machine: whoever answers requests there comes first."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

from regraft.errors import TrainingError

_NICENESS: Final = 10
_FIRST_TO_DIE: Final = "1000"


class _OutOfTime(BaseException):
    """Raised by the alarm."""


def step_back(cpus: int = 0, memory_mb: int = 0) -> None:
    """Let this process run when others do not need the machine, and be the first that the system kills for memory.

    Args:
        cpus: how many it may use; 0 for all that it has.
        memory_mb: megabytes of data that it may have at once; 0 for any.
    """
    os.nice(_NICENESS)
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_DIE)
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cpus:])
    if memory_mb:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mb * 2**20, memory_mb * 2**20))


@contextmanager
def within(minutes: float) -> Iterator[None]:
    """Interrupt the block when it has taken so many minutes; in the main thread only.

    Raises:
        TrainingError: it took longer.
    """

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    except _OutOfTime:
        raise TrainingError(f"it took longer than its limit of {minutes:g} minutes") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
