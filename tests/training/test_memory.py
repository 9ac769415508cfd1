import resource
import subprocess
import sys

import pytest

BLOCK_BYTES = 64 * 2**20
KEPT_BYTES = 16 * 2**20
# Such a block is above what glibc ever keeps by itself; whoever touches it anew pays a fault for each page.
PROGRAM = """
import resource, sys
from training.memory import keep_freed_memory

size = int(sys.argv[2])
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(8):
    b"x" * size
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


BELOW_OTHERS = """
import sys
from pathlib import Path
from training.memory import give_back_freed_memory

size = int(sys.argv[2])
if sys.argv[1] == "give back":
    give_back_freed_memory()
b"x" * size  # glibc raises its limit to what was freed
blocks, small = [], []
for _ in range(4):
    blocks.append(b"x" * size)
    small.append(b"x" * 100_000)
blocks.clear()
print(Path("/proc/self/statm").read_text().split()[1])
"""


def page_faults(word: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, word, str(BLOCK_BYTES)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be told")
def test_a_freed_block_is_used_again_and_not_cleared_anew() -> None:
    pages_of_a_block = BLOCK_BYTES // resource.getpagesize()

    assert page_faults("leave") - page_faults("keep") > 5 * pages_of_a_block


def resident_bytes(word: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", BELOW_OTHERS, word, str(KEPT_BYTES)], capture_output=True, text=True, check=True
    )
    return int(done.stdout) * resource.getpagesize()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be told")
def test_a_freed_block_goes_back_to_the_kernel_though_others_lie_behind_it() -> None:
    assert resident_bytes("leave") - resident_bytes("give back") > 3 * KEPT_BYTES
