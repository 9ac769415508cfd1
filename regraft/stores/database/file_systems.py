"""Names of file systems, and detection of those on a network."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

MOUNTS: Final = Path("/proc/self/mountinfo")
_NETWORK: Final = {
    "9p": "9p",
    "afs": "AFS",
    "beegfs": "BeeGFS",
    "ceph": "Ceph",
    "cifs": "SMB/CIFS",
    "fuse": "FUSE",
    "gpfs": "GPFS",
    "lustre": "Lustre",
    "nfs": "NFS",
    "nfs4": "NFS",
    "smb3": "SMB/CIFS",
    "smbfs": "SMB/CIFS",
}
_LOCAL_FUSE: Final = {"fuse.fuse-overlayfs", "fuse.ntfs-3g", "fuse.ext4"}


class Mount(NamedTuple):
    """One line of ``mountinfo``: folder, kind and source."""

    folder: Path
    kind: str
    source: str


def network_file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Name the network file system of a path, as in ``NFS (host:/export)``.

    Args:
        path: may not be there yet.
        mounts: the kernel's table; a test gives one of its own.

    Returns:
        Nothing where it lies on a disk of this machine, or where that is not known, as on macOS.
    """
    real, mounted = Path(os.path.realpath(path)), None
    with suppress(OSError):
        for mount in map(_mount, mounts.read_text().splitlines()):
            # Of two at one place the later one hides the other.
            if real.is_relative_to(mount.folder) and (not mounted or mount.folder.is_relative_to(mounted.folder)):
                mounted = mount
    if mounted is None or mounted.kind in _LOCAL_FUSE:
        return ""
    name = _NETWORK.get(mounted.kind) or ("FUSE" if mounted.kind.startswith("fuse.") else "")
    return f"{name} ({mounted.source})" if name else ""


def _mount(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    kind, source, *_ = after.split()
    return Mount(Path(_unescaped(before.split()[4])), kind, _unescaped(source))


def _unescaped(text: str) -> str:
    """Return a field of ``mountinfo`` without its octal escapes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
