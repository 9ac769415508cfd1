"""Folders of pictures.

Linked folders are followed, and what other programs leave there is passed over.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_IGNORED: Final = frozenset(
    {
        "@eadir",  # thumbnails of Synology's NAS
        "@recycle",
        "@tmp",
        "#recycle",
        "#snapshot",
        "__macosx",  # what Macs add to archives
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "picasa.ini",
        "icon\r",
    }
)
"""Lower-case names of folders and files that are nobody's pictures, as are those that begin with a dot."""


@dataclass(frozen=True)
class FolderListing:
    """A folder's files, and entries left out with the reason."""

    files: list[Path] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)


def is_ignored(path: Path) -> bool:
    """Tell from its name whether a path is nobody's picture."""
    return path.name.startswith(".") or path.name.casefold() in _IGNORED


def subfolders(folder: Path) -> list[Path]:
    """Return the folders right inside a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_ignored(path))


def list_folder(folder: Path, *, deep: bool = True) -> FolderListing:
    """Return a folder's files; with ``deep`` those further inside, once."""
    inside = FolderListing()
    _collect(folder, inside, {folder.resolve()}, deep=deep)
    return inside


def _collect(folder: Path, inside: FolderListing, seen: set[Path], *, deep: bool) -> None:
    try:
        entries = [path for path in folder.iterdir() if not is_ignored(path)]
    except OSError as error:
        inside.left_out.append((folder, f"cannot be read: {error.strerror}"))
        return
    for path in sorted(entries, key=lambda path: (path.is_symlink(), path.name)):  # a folder itself before links to it
        if os.path.isfile(path):  # noqa: PTH113 - unlike Path's, it is never an error
            inside.files.append(path)
        elif os.path.isdir(path):  # noqa: PTH112 - likewise
            real = path.resolve()
            if deep and real in seen:
                inside.left_out.append((path, f"a link to {real}, which is looked into already"))
            elif deep:
                seen.add(real)
                _collect(path, inside, seen, deep=True)
        elif path.is_symlink():
            inside.left_out.append((path, f"a link to {path.readlink()}, which is not there"))
        else:
            inside.left_out.append((path, "neither a file nor a folder"))
