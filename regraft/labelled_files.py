"""Finding the pictures that a person names on the command line, and their labels: in folders, or by a list."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regraft.errors import InvalidRequestError
from regraft.labels import check_label, one_form
from regraft.manifest import BadLine, LabelledFile, is_manifest, read_manifest

FIELDS: Final = ("file", "label", "source", "annotator", "request_id")
"""The columns of the lists that are written here."""


@dataclass(frozen=True)
class Found:
    """Labelled pictures, and the lines of a list that name none."""

    files: tuple[LabelledFile, ...]
    bad: tuple[BadLine, ...] = ()


def find_all(path: Path, label: str = "") -> Found:
    """Return what `find` finds, or what a list names, see `regraft.manifest`.

    Raises:
        InvalidRequestError: as `find`; or no line of the list makes sense.
        MissingPackageError: the list needs a package that is not installed.
    """
    if not is_manifest(path):
        return Found(tuple(LabelledFile(file, text) for file, text in find(path, label)))
    if label:
        raise InvalidRequestError(f"{path}: says the labels itself; leave --label out")
    manifest = read_manifest(path)
    return Found(manifest.files, manifest.bad)


def find(path: Path, label: str = "") -> list[tuple[Path, str]]:
    """Return (file, label) pairs.

    Args:
        path: with a label, a picture or a folder of pictures; without, a folder that has a folder for each class.
        label: the label of everything under ``path``.

    Raises:
        InvalidRequestError: there is nothing, or no telling which class it is; the text says what to do.
    """
    if not path.exists():
        raise InvalidRequestError(f"{path}: there is no such file or folder")
    if label:
        label = one_form(label)
        check_label(label)
        files = [path] if path.is_file() else _files(path)
        pairs = [(file, label) for file in files]
    elif path.is_file():
        raise InvalidRequestError(f"{path}: which class is it? Say --label")
    else:
        folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        pairs = [(file, one_form(folder.name)) for folder in folders for file in _files(folder)]
        if not folders and _files(path):
            raise InvalidRequestError(f"{path}: has pictures but no class folders; which class are they? Say --label")
    if not pairs:
        raise InvalidRequestError(f"{path}: there are no files in it")
    return pairs


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
