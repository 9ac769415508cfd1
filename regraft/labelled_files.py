"""Finding the pictures that a person names on the command line, and their labels: in folders, CSV or JSON Lines."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from regraft.errors import InvalidRequestError, first_line
from regraft.labels import check_label, one_form

FIELDS: Final = ("file", "label", "source", "annotator", "request_id")
"""The columns of a CSV, and the keys of JSON Lines: a file (from the list's own folder) or a request, and its label."""


@dataclass(frozen=True)
class LabelledFile:
    """A picture and what is said of it, see `regraft.examples.NewExample`; without ``path``, that of a kept request."""

    path: Path | None
    label: str
    source: str = ""
    annotator: str = ""
    request_id: str = ""

    @property
    def name(self) -> str:
        """What people know it by."""
        return str(self.path) if self.path else f"request {self.request_id}"

    @property
    def size_bytes(self) -> int:
        """How large the picture is; 0 where there is no telling."""
        try:
            return self.path.stat().st_size if self.path else 0
        except OSError:
            return 0


def find_all(path: Path, label: str = "") -> list[LabelledFile]:
    """Return what `find` finds, or what a list names that ends in ``.csv`` or ``.jsonl``.

    Raises:
        InvalidRequestError: as `find`; or a line of the list makes no sense, which the text names.
    """
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None or not path.is_file():
        return [LabelledFile(file, text) for file, text in find(path, label)]
    if label:
        raise InvalidRequestError(f"{path}: says the labels itself; leave --label out")
    try:
        found = [_from_row(path, line, row) for line, row in reader(path)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequestError(f"{path}: cannot be read: {first_line(error)}") from error
    if not found:
        raise InvalidRequestError(f"{path}: names no pictures")
    return found


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        for row in reader:
            yield reader.line_num, row


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise InvalidRequestError(f"{path}, line {line}: is no JSON: {first_line(error)}") from error
            if not isinstance(row, Mapping):
                raise InvalidRequestError(f"{path}, line {line}: need an object with {', '.join(FIELDS)}")
            yield line, row


def _from_row(path: Path, line: int, row: Mapping[str, Any]) -> LabelledFile:
    """Return what a row says; its label is judged by the server, so that one bad row does not hold up the others."""
    unknown = [str(key) for key in row if key not in FIELDS]
    if unknown:
        raise InvalidRequestError(f"{path}, line {line}: {unknown[0]!r}: need {', '.join(FIELDS)}")
    fields = {name: row.get(name) or "" for name in FIELDS}
    wrong = [name for name, value in fields.items() if not isinstance(value, str)]
    if wrong:
        raise InvalidRequestError(f"{path}, line {line}: {wrong[0]} is no text")
    file = fields.pop("file")
    if not (file or fields["request_id"]):
        raise InvalidRequestError(f"{path}, line {line}: names neither a file nor a request_id")
    picture = path.parent / file if file else None
    if picture and not picture.is_file():
        raise InvalidRequestError(f"{path}, line {line}: there is no file {picture}")
    return LabelledFile(picture, **fields)


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
