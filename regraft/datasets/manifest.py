"""Lists of labelled pictures: CSV, JSON Lines or Parquet."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from regraft.errors import InvalidRequestError, MissingPackageError, first_line

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "file": (
        *("file", "file path", "image path", "img path", "path", "image file", "image", "img"),
        *("file name", "image name", "img name", "picture", "photo"),
    ),
    "label": ("label name", "class name", "category name", "label", "class", "category", "target"),
    "split": ("split", "set", "subset", "partition", "fold"),
    "group": ("group", "group id", "patient", "patient id", "subject", "subject id", "session", "session id"),
    "source": ("source", "origin", "dataset", "site"),
    "weight": ("weight", "sample weight"),
    "annotator": ("annotator", "annotated by", "labeller", "labeler"),
    "request_id": ("request id",),
}
"""Columns of a field, the first one counts; case, spaces, underscores and hyphens do not matter."""


@dataclass(frozen=True)
class LabelledFile:
    """A labelled picture of a list, see `regraft.stores.labels.NewExample`.

    Attributes:
        path: None stands for a picture that the server has: of a kept request, or without a label.
        split: as the list calls it.
        group: what pictures that belong together share.
        weight: what the picture counts in the fit, above 0.
        place: where the list says so, such as ``line 7``.
        sha256: of a picture that the server has without a label.
    """

    path: Path | None
    label: str
    source: str = ""
    annotator: str = ""
    request_id: str = ""
    split: str = ""
    group: str = ""
    weight: float = 1.0
    place: str = ""
    sha256: str = ""

    @property
    def name(self) -> str:
        """The picture's name for people."""
        return str(self.path or (f"picture {self.sha256}" if self.sha256 else f"request {self.request_id}"))

    @property
    def size_bytes(self) -> int:
        """The picture's size, 0 where unknown."""
        try:
            return self.path.stat().st_size if self.path else 0
        except OSError:
            return 0


@dataclass(frozen=True)
class BadLine:
    """A line that names no picture, with the reason."""

    place: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """A list as it was read.

    Attributes:
        path: of the list; the pictures' paths are relative to its folder.
        files: what its good lines say.
        bad: the others.
        unused: the columns that mean nothing here.
    """

    path: Path
    files: tuple[LabelledFile, ...]
    bad: tuple[BadLine, ...]
    unused: tuple[str, ...]


class _BadLineError(Exception):
    """Ends the reading of one line."""


Row = Mapping[str, Any]
_Rows = Iterator[tuple[str, Row | _BadLineError]]


def is_manifest(path: Path) -> bool:
    """Tell whether a path is a list's."""
    return path.suffix.lower() in _READERS and path.is_file()


def read_manifest(path: Path) -> Manifest:
    """Read a list; bad lines leave the others as they are.

    Raises:
        InvalidRequestError: it has no good line; the text names the first bad one.
        MissingPackageError: it is a Parquet file, and pyarrow is not installed.
    """
    reading = _Reading(path)
    try:
        for place, row in _READERS[path.suffix.lower()](path):
            reading.add(place, row)
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidRequestError(f"{path}: cannot be read: {first_line(error)}") from error
    return reading.result()


@dataclass
class _Reading:
    path: Path
    files: list[LabelledFile] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)  # of those that were met, the field

    def add(self, place: str, row: Row | _BadLineError) -> None:
        """Add a line, or the reason why it is bad."""
        try:
            if isinstance(row, _BadLineError):
                raise row
            self.files.append(self._file(place, self._fields(row)))
        except _BadLineError as error:
            self.bad.append(BadLine(place, str(error)))

    def result(self) -> Manifest:
        """Return what was read."""
        if not self.files and self.bad:
            first = self.bad[0]
            raise InvalidRequestError(f"{self.path}, {first.place}: {first.reason}")
        if not self.files:
            raise InvalidRequestError(f"{self.path}: names no pictures")
        unused = tuple(name for name, meaning in self.columns.items() if not meaning)
        return Manifest(self.path, tuple(self.files), tuple(self.bad), unused)

    def _fields(self, row: Row) -> dict[str, str]:
        """Return a line's fields, each by its first filled column."""
        values: dict[str, dict[str, str]] = {name: {} for name in COLUMNS}
        for column, value in row.items():
            if column not in self.columns:
                self.columns[column] = _MEANING.get(_plain(column), "")
            if name := self.columns[column]:
                values[name][_plain(column)] = _text(column, value)
        return {
            name: next(filter(None, (values[name].get(_plain(each), "") for each in columns)), "")
            for name, columns in COLUMNS.items()
        }

    def _file(self, place: str, fields: dict[str, str]) -> LabelledFile:
        file, weight = fields.pop("file"), fields.pop("weight")
        if not (file or fields["request_id"]):
            met = ", ".join(repr(name) for name in self.columns) or "none"
            raise _BadLineError(f"names neither a file nor a request_id; its columns: {met}")
        path = _existing(self.path.parent, file) if file else None
        return LabelledFile(path, weight=_weight(weight), place=place, **fields)


def _plain(column: str) -> str:
    return "".join(letter for letter in column.casefold() if letter.isalnum())


_MEANING: Final = {_plain(column): name for name, columns in COLUMNS.items() for column in columns}


def _text(column: str, value: object) -> str:
    """Return a value as text; numbers are labels too."""
    match value:
        case None:
            return ""
        case str():
            return value.strip()
        case bool():
            raise _BadLineError(f"{column} is no text")
        case int():
            return str(value)
        case float():
            return "" if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    raise _BadLineError(f"{column} is no text")


def _existing(folder: Path, file: str) -> Path:
    path = folder / file
    if not _is_file(path) and os.sep == "/" and _is_file(other := folder / file.replace("\\", "/")):
        return other  # a list that was made on Windows
    if not _is_file(path):
        raise _BadLineError(f"there is no file {path}")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def _weight(text: str) -> float:
    try:
        weight = float(text or 1)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise _BadLineError(f"weight {text!r}: need a number above 0")
    return weight


def _csv_rows(path: Path) -> _Rows:
    """Yield the lines of a CSV, of any delimiter.

    Bytes that are no UTF-8 spoil only the line that has them.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, strict=True, delimiter=max(",;\t", key=header.count))
        while True:
            try:
                row: Row | _BadLineError = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                row = _BadLineError(first_line(error))
            if isinstance(row, Mapping) and None in row:
                row = _BadLineError("has more fields than the first line names")
            yield f"line {reader.reader.line_num}", row


def _json_rows(path: Path) -> _Rows:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for line, text in enumerate(file, start=1):
            if text.strip():
                yield f"line {line}", _json_row(text)


def _json_row(text: str) -> Row | _BadLineError:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _BadLineError(f"is no JSON: {first_line(error)}")
    return row if isinstance(row, Mapping) else _BadLineError("is no object with a file and a label")


def _parquet_rows(path: Path) -> _Rows:
    try:
        import pyarrow.parquet  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingPackageError(f"{path}: Parquet needs pyarrow: pip install 'regraft[parquet]'") from error
    with pyarrow.parquet.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if _plain(name) in _MEANING]
        number = 0
        for batch in file.iter_batches(columns=names):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row


_READERS: Final[Mapping[str, Callable[[Path], _Rows]]] = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".parquet": _parquet_rows,
}
