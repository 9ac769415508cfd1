"""Settings that keep the C library's heap small.

What loading a version or decoding a picture took shall not stay with the process.

glibc gives threads heaps of their own, up to eight a CPU, and each keeps what its largest moment took. Whatever thread
happens to load a version thus holds the size of a model file for good: after twenty swaps a server had grown by half.
"""

import ctypes
from contextlib import suppress
from typing import Final

_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2
_M_MMAP_THRESHOLD: Final = -3
_LARGE_BYTES: Final = 4 * 2**20


def share_heaps() -> None:
    """Let all threads share two heaps; call it before there are threads.

    Does nothing where there is no glibc. What is large has pages of its own, which go back when it is freed. By itself
    glibc lets what counts as large grow with every such block, to 32 MB, and keeps the pictures of its worst moment.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Give free memory back to the system; takes milliseconds, so not on the event loop."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
