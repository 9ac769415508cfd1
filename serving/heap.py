"""Keeps the C library's heap small: what a version took to load shall not stay with the process.

glibc gives threads heaps of their own, up to eight a CPU, and each keeps what its largest moment took. Whatever thread
happens to load a version thus holds the size of a model file for good: after twenty swaps a server had grown by half.
"""

import ctypes
from contextlib import suppress
from typing import Final

_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2


def share_heaps() -> None:
    """Let all threads share two heaps; call it before there are threads. Does nothing where there is no glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Give free memory back to the system; takes milliseconds, so not on the event loop."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
