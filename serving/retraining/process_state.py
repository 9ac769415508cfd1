"""State of a process, by the kernel's /proc; without it nothing is known."""

from contextlib import suppress
from pathlib import Path


def is_stopped(process: int, system: Path = Path("/")) -> bool:
    """Tell whether a process is stopped, by SIGSTOP or a freezer.

    It does nothing until somebody lets it go on, and keeps every lock that it holds. A debugger's stops are not meant:
    they come and go by the thousand.

    Args:
        process: its id; False where it is gone.
        system: the root of the file system; a test gives one of its own.
    """
    proc = system / "proc" / str(process)
    with suppress(OSError):
        state = (proc / "stat").read_text().rpartition(")")[2].split()[0]
        return state == "T" or any(map(_is_frozen, _groups(proc, system)))
    return False


def _groups(proc: Path, system: Path) -> list[Path]:
    """Return the control groups (version 2) of a process."""
    memberships = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
    own = [path.lstrip("/") for number, _, path in memberships if number == "0"]
    return [system / "sys/fs/cgroup" / mount / path for mount in ("", "unified") for path in own]


def _is_frozen(group: Path) -> bool:
    with suppress(OSError):  # the root group has no such file
        return "frozen 1" in (group / "cgroup.events").read_text().splitlines()
    return False
