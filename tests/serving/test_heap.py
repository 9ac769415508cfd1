import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such heaps")

THREADS = """
import ctypes, threading
from serving.heap import share_heaps
if {shared}:
    share_heaps()
libc, together = ctypes.CDLL(None), threading.Barrier(9)
def allocate():
    libc.malloc(1000)
    together.wait()
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
together.wait()
libc.malloc_stats()
together.wait()
"""

FREED = """
import ctypes, pathlib, re
from serving.heap import give_back
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def resident_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
blocks = [libc.malloc(60_000) for _ in range(2_000)]
for block in blocks:
    ctypes.memset(block, 1, 60_000)
last = libc.malloc(60_000)  # what lies above keeps the heap from shrinking by itself
for block in blocks:
    libc.free(block)
before_mb = resident_mb()
give_back()
print(before_mb - resident_mb())
"""


def heaps(*, shared: bool) -> int:
    program = [sys.executable, "-c", THREADS.format(shared=shared)]
    return subprocess.run(program, check=True, capture_output=True, text=True).stderr.count("Arena")


def test_all_threads_share_two_heaps() -> None:
    assert heaps(shared=False) > 2
    assert heaps(shared=True) <= 2


def test_what_was_freed_goes_back_to_the_system() -> None:
    given_mb = float(subprocess.run([sys.executable, "-c", FREED], check=True, capture_output=True, text=True).stdout)

    assert given_mb > 100
