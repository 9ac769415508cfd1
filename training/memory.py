"""How the C library hands memory out."""

import ctypes
import sys
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_NEVER: Final = 2**31 - 1
_LARGE_BYTES: Final = 4 * 2**20


def keep_freed_memory() -> None:
    """Keep freed blocks for further use rather than give them back.

    That goes for the whole process; only glibc is told.

    A training step on a CPU frees and allocates activations of tens of megabytes. By default glibc maps each of them
    anew, and the kernel clears every page again, which took a third of the time of a step.
    """
    _tell({_M_MMAP_THRESHOLD: _NEVER, _M_TRIM_THRESHOLD: _NEVER})


def give_back_freed_memory() -> None:
    """Give freed blocks of `_LARGE_BYTES` back to the kernel at once.

    That goes for the whole process; only glibc is told.

    By default glibc raises that limit to what was freed, up to 32 MiB: then the matrices of each thread of a fit stay
    with the process, which took as much memory as 15,000 embeddings.
    """
    _tell({_M_MMAP_THRESHOLD: _LARGE_BYTES})


def _tell(limits: dict[int, int]) -> None:
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        for name, value in limits.items():
            mallopt(name, value)
