"""The CPU quota of the control groups that a process is in: of its own and of all above, in version 1 or 2."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_V2 = ""
"""What a line of /proc/self/cgroup names as controllers where there is one tree for all of them."""


def quota_cpus(system: Path = Path("/")) -> float | None:
    """Return how many CPUs the process may use, by the least quota of its groups, or None where none has any.

    ``systemd``'s ``CPUQuota=`` stands on the unit's own group, a container's on what it sees as the root.

    Args:
        system: the root of the file system; a test gives one of its own.
    """
    quotas = [_quota(folder) for folder in _groups(system)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(system: Path) -> Iterator[Path]:
    """Yield the folders of the groups that can have a quota, from the process's own up to the root."""
    for controllers, path in _memberships(system):
        mounts = ("", "unified") if controllers == [_V2] else (",".join(controllers), "cpu", "cpu,cpuacct")
        own = PurePosixPath(path.lstrip("/"))
        for mount in dict.fromkeys(mounts):
            for group in (own, *own.parents):  # what is outside of a container's view is not there
                yield system / "sys/fs/cgroup" / mount / group


def _memberships(system: Path) -> Iterator[tuple[list[str], str]]:
    """Yield the controllers and the path of each group that concerns CPU time; the root where the file says nothing."""
    yield [_V2], "/"
    yield ["cpu"], "/"
    with suppress(OSError):
        for line in (system / "proc/self/cgroup").read_text().splitlines():
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
