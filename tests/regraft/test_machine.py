import getpass
import os
import platform
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regraft.machine import cpu_budget, quota_cpus, schedule_at_once, schedule_in_batches, user_name

on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such heaps")
on_linux = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux gives threads policies of their own")


def in_a_child(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)


def system(root: Path, membership: str, **groups: str) -> Path:
    """Write a file system: what /proc/self/cgroup says, and files of groups by their path below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for path, text in groups.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


def v1(path: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {f"{path}/cpu.cfs_quota_us": str(quota), f"{path}/cpu.cfs_period_us": str(period)}


UNIT = "system.slice/regraft.service"


@pytest.mark.parametrize(
    ("membership", "groups", "cpus"),
    [
        pytest.param(f"0::/{UNIT}\n", {f"{UNIT}/cpu.max": "150000 100000"}, 1.5, id="CPUQuota of a unit, version 2"),
        pytest.param(f"0::/{UNIT}\n", {f"{UNIT}/cpu.max": "max 100000"}, None, id="a unit without one"),
        pytest.param(
            f"0::/{UNIT}\n",
            {f"{UNIT}/cpu.max": "400000 100000", "system.slice/cpu.max": "200000 100000"},
            2.0,
            id="the slice above has less",
        ),
        pytest.param("0::/\n", {"cpu.max": "50000 100000"}, 0.5, id="a container with a view of its own, version 2"),
        pytest.param("0::/docker/abc\n", {"cpu.max": "300000 100000"}, 3.0, id="a container that sees the host's path"),
        pytest.param(f"4:cpu,cpuacct:/{UNIT}\n", v1(f"cpu,cpuacct/{UNIT}", 250_000), 2.5, id="a unit, version 1"),
        pytest.param(f"4:cpuacct,cpu:/{UNIT}\n", v1(f"cpu/{UNIT}", 250_000), 2.5, id="its link, version 1"),
        pytest.param(f"1:cpu:/\n0::/{UNIT}\n", v1("cpu", -1), None, id="no quota, version 1"),
        pytest.param("1:cpu:/docker/abc\n", v1("cpu", 100_000, 50_000), 2.0, id="a container, version 1"),
        pytest.param(f"2:cpuset:/{UNIT}\n", v1(f"cpu/{UNIT}", 100_000), None, id="a group of another controller"),
        pytest.param(f"0::/{UNIT}\n", {f"{UNIT}/cpu.max": "nonsense"}, None, id="nonsense"),
        pytest.param("", {"cpu.max": "200000 100000"}, 2.0, id="nothing said of the process"),
    ],
)
def test_the_least_quota_of_the_processs_own_group_and_those_above_counts(
    membership: str, groups: dict[str, str], cpus: float | None, tmp_path: Path
) -> None:
    assert quota_cpus(system(tmp_path, membership, **groups)) == cpus


def test_where_there_are_no_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota_cpus(tmp_path) is None


def test_this_process_has_a_quota_of_some_cpus_or_none() -> None:
    quota = quota_cpus()

    assert quota is None or quota > 0


def test_the_cpu_budget_lies_between_one_and_what_the_host_has() -> None:
    assert 1 <= cpu_budget() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin a process to a CPU")
def test_the_cpu_budget_of_a_process_pinned_to_one_cpu_is_one() -> None:
    printed = in_a_child(
        "import os\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from regraft.machine import cpu_budget\n"
        "print(cpu_budget())\n"
    ).stdout

    assert printed == "1\n"


THREADS = """
import ctypes, threading
from regraft.machine import share_heaps
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
from regraft.machine import trim_heap
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
trim_heap()
print(before_mb - resident_mb())
"""


def heaps(*, shared: bool) -> int:
    return in_a_child(THREADS.format(shared=shared)).stderr.count("Arena")


@on_glibc
def test_all_threads_share_two_heaps() -> None:
    assert heaps(shared=False) > 2
    assert heaps(shared=True) <= 2


@on_glibc
def test_what_was_freed_goes_back_to_the_system() -> None:
    assert float(in_a_child(FREED).stdout) > 100


BLOCK_BYTES = 64 * 2**20
KEPT_BYTES = 16 * 2**20
# Such a block is above what glibc ever keeps by itself; whoever touches it anew pays a fault for each page.
AGAIN = """
import resource, sys
from regraft.machine import keep_freed_blocks

size = int(sys.argv[2])
if sys.argv[1] == "keep":
    keep_freed_blocks()
for _ in range(8):
    b"x" * size
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


BELOW_OTHERS = """
import sys
from pathlib import Path
from regraft.machine import return_large_blocks

size = int(sys.argv[2])
if sys.argv[1] == "give back":
    return_large_blocks()
b"x" * size  # glibc raises its limit to what was freed
blocks, small = [], []
for _ in range(4):
    blocks.append(b"x" * size)
    small.append(b"x" * 100_000)
blocks.clear()
print(Path("/proc/self/statm").read_text().split()[1])
"""


def page_faults(word: str) -> int:
    return int(in_a_child(AGAIN, word, str(BLOCK_BYTES)).stdout)


@on_glibc
def test_a_freed_block_is_used_again_and_not_cleared_anew() -> None:
    pages_of_a_block = BLOCK_BYTES // resource.getpagesize()

    assert page_faults("leave") - page_faults("keep") > 5 * pages_of_a_block


def resident_bytes(word: str) -> int:
    return int(in_a_child(BELOW_OTHERS, word, str(KEPT_BYTES)).stdout) * resource.getpagesize()


@on_glibc
def test_a_freed_block_goes_back_to_the_kernel_though_others_lie_behind_it() -> None:
    assert resident_bytes("leave") - resident_bytes("give back") > 3 * KEPT_BYTES


def policy() -> int:
    return os.sched_getscheduler(0)


@on_linux
def test_threads_of_one_that_works_in_bulk_do_so_too_but_for_those_that_schedule_at_once() -> None:
    def start_two() -> tuple[int, int]:
        with ThreadPoolExecutor(1) as same, ThreadPoolExecutor(1, initializer=schedule_at_once) as lane:
            return same.submit(policy).result(), lane.submit(policy).result()

    with ThreadPoolExecutor(1, initializer=schedule_in_batches) as loop:
        assert loop.submit(policy).result() == os.SCHED_BATCH
        assert loop.submit(start_two).result() == (os.SCHED_BATCH, os.SCHED_OTHER)

    assert policy() == os.SCHED_OTHER


@on_linux
def test_another_policy_was_chosen_by_an_operator_and_stays() -> None:
    def idle() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    with ThreadPoolExecutor(1, initializer=idle) as thread:
        for change in (schedule_in_batches, schedule_at_once):
            thread.submit(change).result()
            assert thread.submit(policy).result() == os.SCHED_IDLE


def test_a_user_is_known_by_the_name_of_the_login() -> None:
    assert user_name(lambda: "ada") == "ada"
    assert user_name() == getpass.getuser()


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 1000710000"), OSError("No username set")])
def test_a_user_without_a_name_is_known_by_number(error: Exception) -> None:
    def nobody() -> str:
        raise error

    assert user_name(nobody) == f"uid {os.getuid()}"
