"""Pictures without labels in files, folders and zip archives: found, and read."""

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias

from regraft.datasets.folders import is_ignored, list_folder
from regraft.datasets.manifest import BadLine
from regraft.errors import InvalidRequestError, first_line

_ENCRYPTED: Final = 1
"""The bit of an entry's flags."""
_Open: TypeAlias = Callable[[Path], zipfile.ZipFile]


@dataclass(frozen=True)
class UnlabelledFile:
    """A picture of a file or an archive.

    Attributes:
        name: for people.
        size_bytes: of it, unpacked.
        read: returns its bytes, or raises `OSError`.
    """

    name: str
    size_bytes: int
    read: Callable[[], bytes] = field(compare=False)


@dataclass(frozen=True)
class UnlabelledFiles:
    """Pictures without labels, and entries that are none."""

    files: tuple[UnlabelledFile, ...]
    bad: tuple[BadLine, ...] = ()


def find_unlabelled(paths: Iterable[Path]) -> UnlabelledFiles:
    """Return the pictures of files, folders and zip archives, each once.

    Raises:
        InvalidRequestError: a path does not exist, an archive is damaged, or there are no files at all.
    """
    files: dict[str, UnlabelledFile] = {}
    bad: list[BadLine] = []
    # Opening an archive reads its whole directory, so it stays open for its entries until the next one is opened.
    opened: _Open = lru_cache(maxsize=1)(zipfile.ZipFile)
    for path in paths:
        if not path.exists():
            raise InvalidRequestError(f"{path}: there is no such file or folder")
        if path.is_dir():
            inside = list_folder(path)
            found: Iterator[UnlabelledFile] = map(_of_file, sorted(inside.files))
            bad += [BadLine(str(entry), reason) for entry, reason in inside.left_out]
        elif zipfile.is_zipfile(path):
            found = _in_archive(path, opened)
        else:
            found = iter([_of_file(path)])
        files.update((file.name, file) for file in found)
    if not files:
        raise InvalidRequestError(f"{', '.join(map(str, paths))}: there are no files in it")
    return UnlabelledFiles(tuple(files.values()), tuple(bad))


def _of_file(path: Path) -> UnlabelledFile:
    try:
        size_bytes = path.stat().st_size
    except OSError:
        size_bytes = 0
    return UnlabelledFile(str(path), size_bytes, path.read_bytes)


def _in_archive(path: Path, opened: _Open) -> Iterator[UnlabelledFile]:
    """Yield the pictures of an archive.

    Its entries are read one by one, and never unpacked to the disk.
    """
    try:
        entries = [entry for entry in opened(path).infolist() if not entry.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidRequestError(f"{path}: cannot be read as a zip archive: {first_line(error)}") from error
    for entry in entries:
        if not any(part != ".." and is_ignored(Path(part)) for part in PurePosixPath(entry.filename).parts):
            yield UnlabelledFile(f"{path}/{entry.filename}", entry.file_size, partial(_read_entry, opened, path, entry))


def _read_entry(opened: _Open, path: Path, entry: zipfile.ZipInfo) -> bytes:
    if entry.flag_bits & _ENCRYPTED:
        raise OSError("it is encrypted: unpack the archive first")
    try:
        return opened(path).read(entry)  # never more bytes than the entry says
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise OSError(first_line(error)) from error
