"""CPUs, the heap, thread scheduling and the user's name."""

import ctypes
import getpass
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

_V2: Final = ""
"""The controllers of a line of /proc/self/cgroup where there is one tree for all of them."""

_ARENA_MAX: Final = -8
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_NEVER: Final = 2**31 - 1
_LARGE_BYTES: Final = 4 * 2**20


def cpu_budget() -> int:
    """Return the CPUs that affinity and cgroup quota leave, at least one."""
    quota = quota_cpus()
    return max(1, min(allowed_cpus(), int(quota))) if quota else allowed_cpus()


def allowed_cpus() -> int:
    """Return the CPUs in the affinity, whatever their quota."""
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def quota_cpus(root: Path = Path("/")) -> float | None:
    """Return the least CPU quota of the process's cgroups, or None.

    It looks at the process's own group and all above, in version 1 or 2: ``systemd``'s ``CPUQuota=`` stands on the
    unit's own group, a container's on what it sees as the root.

    Args:
        root: the root of the file system; a test gives one of its own.
    """
    quotas = [_quota(folder) for folder in _groups(root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the process's groups, up to the root."""
    for controllers, path in _memberships(root):
        mounts = ("", "unified") if controllers == [_V2] else (",".join(controllers), "cpu", "cpu,cpuacct")
        own = PurePosixPath(path.lstrip("/"))
        for mount in dict.fromkeys(mounts):
            for group in (own, *own.parents):  # what is outside of a container's view is not there
                yield root / "sys/fs/cgroup" / mount / group


def _memberships(root: Path) -> Iterator[tuple[list[str], str]]:
    """Yield controllers and path of each CPU group; the root too."""
    yield [_V2], "/"
    yield ["cpu"], "/"
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            controllers = names.split(",")
            if controllers == [_V2] or "cpu" in controllers:
                yield controllers, path


def _quota(group: Path) -> float | None:
    """Return the quota of one group in CPUs."""
    with suppress(OSError, ValueError):  # "max", or no such file: another version's
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None  # -1 is no quota
    return None


def processor() -> str:
    """Return the CPU's name, as far as the system tells."""
    with suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def share_heaps() -> None:
    """Let all threads share two heaps; call it before there are threads.

    For a server, and glibc alone. Freed blocks of 4 MiB go back to the system. By itself glibc gives threads heaps of
    their own, up to eight a CPU, and each keeps what its largest moment took: the thread that loaded a version held
    the size of a model file for good, and after twenty swaps a server had grown by half.
    """
    _set_heap({_ARENA_MAX: 2, _MMAP_THRESHOLD: _LARGE_BYTES})


def return_large_blocks() -> None:
    """Return freed blocks of 4 MiB to the system at once.

    For a fit, and glibc alone. By itself it raises that limit to what was freed, up to 32 MiB: then the matrices of
    each thread stay with the process, which took as much memory as 15,000 embeddings.
    """
    _set_heap({_MMAP_THRESHOLD: _LARGE_BYTES})


def keep_freed_blocks() -> None:
    """Keep freed blocks for further use.

    For a fine-tuning, and glibc alone. A training step on a CPU frees and allocates activations of tens of
    megabytes. By itself glibc maps each of them anew, and the kernel clears every page again, which took a third of
    the time of a step.
    """
    _set_heap({_MMAP_THRESHOLD: _NEVER, _TRIM_THRESHOLD: _NEVER})


def _set_heap(options: dict[int, int]) -> None:
    with suppress(OSError, AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in options.items():
            mallopt(option, value)


def trim_heap() -> None:
    """Return free memory to the system, in milliseconds."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def schedule_in_batches() -> None:
    """Schedule this thread, and those it starts, in batches.

    A thread that wakes up mostly gets the CPU at once. Where lanes keep all CPUs busy, each message that arrives would
    thus interrupt a run of the network, and find nothing of what it needs in the processor's caches, nor leave there
    what the run needs. As SCHED_BATCH (sched(7)) the threads that receive and answer get the same share of the CPU, but
    take it in one piece, for all that has come meanwhile. Where a CPU is free they wake up as soon as ever. On Linux
    alone, where each thread has a policy of its own.
    """
    _change_policy("SCHED_OTHER", "SCHED_BATCH")


def schedule_at_once() -> None:
    """Schedule this thread as it wakes up, as lanes need."""
    _change_policy("SCHED_BATCH", "SCHED_OTHER")


def _change_policy(before: str, after: str) -> None:
    """Change the scheduling policy; an operator's own choice stays."""
    with suppress(AttributeError, OSError):  # another system, or a sandbox that forbids it
        if os.sched_getscheduler(0) == getattr(os, before):
            os.sched_setscheduler(0, getattr(os, after), os.sched_param(0))


def user_name(login: Callable[[], str] = getpass.getuser) -> str:
    """Return the user's name, or number where a container has none."""
    try:
        return login()
    except (KeyError, OSError):  # the former up to Python 3.12
        return f"uid {os.getuid()}"
