"""Labelled pictures in folders and lists: found, and written."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regraft.datasets.folders import list_folder, subfolders
from regraft.datasets.manifest import BadLine, LabelledFile, is_manifest, read_manifest
from regraft.errors import InvalidRequestError, StorageError
from regraft.files import storage_errors
from regraft.image.file_kinds import format_of
from regraft.label_rules import check_label, nfc

FIELDS: Final = ("file", "label", "source", "group", "annotator", "request_id")
"""The columns of written lists."""

_ENDINGS: Final = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WebP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tiff",
    "AVIF": ".avif",
}
"""Endings by format, for people and for programs that go by names."""


@dataclass(frozen=True)
class LabelledFiles:
    """Labelled pictures, and the lines of a list that name none."""

    files: tuple[LabelledFile, ...]
    bad: tuple[BadLine, ...] = ()


def find_labelled(path: Path, label: str = "") -> LabelledFiles:
    """Return the labelled pictures of a folder or a list.

    Raises:
        InvalidRequestError: as `find_in_folder`; or no line of the list makes sense.
        MissingPackageError: the list needs a package that is not installed.
    """
    if not is_manifest(path):
        pairs, bad = _in_folder(path, label)
        return LabelledFiles(tuple(LabelledFile(file, text) for file, text in pairs), bad)
    if label:
        raise InvalidRequestError(f"{path}: says the labels itself; leave --label out")
    manifest = read_manifest(path)
    return LabelledFiles(manifest.files, manifest.bad)


def find_in_folder(path: Path, label: str = "") -> list[tuple[Path, str]]:
    """Return (file, label) pairs of a folder or file.

    Args:
        path: with a label, a picture or a folder of pictures; without, a folder that has a folder for each class.
        label: the label of everything under ``path``.

    Raises:
        InvalidRequestError: there is nothing, or no label; the text says what to do.
    """
    return _in_folder(path, label)[0]


def _in_folder(path: Path, label: str) -> tuple[list[tuple[Path, str]], tuple[BadLine, ...]]:
    """Return (file, label) pairs, and entries that are no file."""
    if not path.exists():
        raise InvalidRequestError(f"{path}: there is no such file or folder")
    label = nfc(label)
    if label:
        check_label(label)
    elif path.is_file():
        raise InvalidRequestError(f"{path}: which class is it? Say --label")
    if path.is_file():
        return [(path, label)], ()
    folders = [(path, label)] if label else [(folder, nfc(folder.name)) for folder in subfolders(path)]
    if not folders and list_folder(path).files:
        raise InvalidRequestError(f"{path}: has pictures but no class folders; which class are they? Say --label")
    classes = [(list_folder(folder), text) for folder, text in folders]
    pairs = [(file, text) for inside, text in classes for file in sorted(inside.files)]
    if not pairs:
        raise InvalidRequestError(f"{path}: there are no files in it")
    return pairs, tuple(BadLine(str(file), reason) for inside, _ in classes for file, reason in inside.left_out)


def write_picture(folder: Path, label: str, stem: str, image: bytes) -> str:
    """Write a picture of a server into the folder of its label.

    Returns:
        Its path within ``folder``.

    Raises:
        StorageError: it cannot be written, or its label or name would lead out of the folder.
    """
    try:
        if label:
            check_label(label)
        if not stem.isalnum():
            raise InvalidRequestError(f"the server calls a picture {stem!r}")
    except InvalidRequestError as error:
        raise StorageError(f"{folder}: {error}") from error
    file = Path(label) / f"{stem}{_ENDINGS.get(format_of(image), '')}"
    with storage_errors(f"cannot write {folder / file}"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(image)
    return str(file)


def write_list(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write a list with the columns `FIELDS`, which `find_labelled` reads.

    Raises:
        StorageError: it cannot be written.
    """
    with storage_errors(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS, restval="")
            writer.writeheader()
            writer.writerows(rows)
