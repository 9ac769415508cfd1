"""The history of a model, which decides all that changes.

``<store>/<name>/history.jsonl``: a line for what the model began with, for each publication, for every move of the
alias, and for each time that it was deleted or restored. The last line of a kind IS the state: no other file can
disagree with it.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from regraft.errors import InvalidRequestError, OperatorError
from regraft.files import fsync_folder
from regraft.label_rules import LabelPolicy, check_label, nfc
from regraft.stores.etags import etag_of

log = logging.getLogger("regraft.store")

REFUSED_BECAUSE: Final = "refused: "
"""Begins the reason in the history where the gate did not bless a version; see `HistoryEntry.refusal`."""
REQUEST: Final = "request:"
MOST_LABELS: Final = 1_000

_HISTORY: Final = "history.jsonl"

Event: TypeAlias = Literal["create", "publish", "promote", "rollback", "shadow", "unshadow", "delete", "restore"]
_EVENTS: Final = get_args(Event)


@dataclass(frozen=True)
class Beginning:
    """The beginning of a model, before it has a version.

    Attributes:
        backbone: its digest.
        backbone_name: by which people ask for it.
        labels: the classes that it begins with, in their order.
        policy: whether others make new classes (``open``).
    """

    backbone: str
    backbone_name: str
    labels: tuple[str, ...] = ()
    policy: LabelPolicy = "open"

    def __post_init__(self) -> None:
        """Bring the labels to their one form."""
        object.__setattr__(self, "labels", tuple(map(nfc, self.labels)))

    def check(self) -> None:
        """Check the labels.

        Raises:
            InvalidRequestError: one is no label, or is there twice, or they are too few or too many.
        """
        for label in self.labels:
            check_label(label)
        if len(set(self.labels)) != len(self.labels):
            twice = next(label for label in self.labels if self.labels.count(label) > 1)
            raise InvalidRequestError(f"labels: {twice!r} is there twice")
        if len(self.labels) > MOST_LABELS:
            raise InvalidRequestError(f"labels: {len(self.labels)}; the limit is {MOST_LABELS}")
        if self.policy == "closed" and len(self.labels) < 2:
            raise InvalidRequestError(
                f"labels: a classifier tells two classes apart at least, and a closed set of {len(self.labels)} can "
                "never grow: name them all, or leave the set open"
            )


@dataclass(frozen=True)
class HistoryEntry:
    """One line of ``history.jsonl``.

    Attributes:
        event: ``create`` the model, without a version; ``publish`` a version; ``promote`` it to champion; ``rollback``
            to the champion before; ``shadow``: it judges beside the champion; ``unshadow``: no longer; ``delete`` the
            model, into the trash; ``restore`` it.
        version: the version published, the champion from now on, or the shadow; 0 where the event is of no version.
        previous: the champion until now, or None.
        who: the person or program that did it.
        why: the reason given, or what the gate said.
        job: the retrain job that did it; or ``request:`` and the id of the request, for which there is no field of its
            own, since older Regrafts skip lines with fields that they do not know; or empty.
        at: UTC, ISO 8601.
        beginning: of a ``create``.
    """

    event: Event
    version: int
    previous: int | None
    who: str
    why: str
    job: str
    at: str
    beginning: Beginning | None = None

    @property
    def request_id(self) -> str:
        """The id of the request that did it, or empty."""
        return self.job.removeprefix(REQUEST) if self.job.startswith(REQUEST) else ""

    @property
    def refusal(self) -> str:
        """The gate's reasons against a version that was published, or empty."""
        return self.why.removeprefix(REFUSED_BECAUSE) if self.why.startswith(REFUSED_BECAUSE) else ""

    def to_json(self) -> str:
        """Return the line, without a beginning where there is none."""
        fields = asdict(self)
        if self.beginning is None:
            del fields["beginning"]
        return json.dumps(fields)


class Histories:
    """The histories of models, each read anew when its file has changed."""

    def __init__(self) -> None:
        """Know none yet."""
        self._read: dict[Path, tuple[tuple[int, int, int], list[HistoryEntry]]] = {}

    def of(self, folder: Path) -> list[HistoryEntry]:
        """Return the history of the model in ``folder``, oldest first.

        Raises:
            OperatorError: a newer Regraft wrote a line that this one does not know.
        """
        path = folder / _HISTORY
        try:
            status = path.stat()
        except FileNotFoundError:
            self._read.pop(folder, None)
            return []
        stamp = status.st_ino, status.st_size, status.st_mtime_ns
        cached = self._read.get(folder)
        if cached is None or cached[0] != stamp:
            try:
                cached = self._read[folder] = stamp, list(_entries(path))
            except FileNotFoundError:  # moved away since
                return []
        return cached[1]


def append(folder: Path, entry: HistoryEntry) -> None:
    """Append one line durably, after cutting off a torn one.

    Raises:
        OSError: the disk refused; the history is as it was.
    """
    path = folder / _HISTORY
    with path.open("a+b", buffering=0) as file:  # a buffer would be written once more on closing, after an error
        file.seek(0)
        end = file.read().rfind(b"\n") + 1
        file.truncate(end)
        left = memoryview(entry.to_json().encode() + b"\n")
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
            fsync_folder(path.parent)
        except BaseException as error:
            try:
                file.truncate(end)
            except OSError:
                if not left:  # everybody can read the line: it took effect
                    log.error("%s: its last line may not outlive a power cut: %s", path, error)
                    return
            raise


def champions_of(history: Sequence[HistoryEntry]) -> list[int]:
    """Return the champions of a rollback's way, the present one last."""
    line: list[int] = []
    for entry in history:
        if entry.event == "promote" and line[-1:] != [entry.version]:
            line.append(entry.version)
        elif entry.event == "rollback":
            line = line[:-1]  # a damaged history may roll back more than it promoted
    return line


def champion_of(history: Sequence[HistoryEntry]) -> int | None:
    """Return the version that serves, or None while none was promoted."""
    return [None, *champions_of(history)][-1]


def shadow_of(history: Sequence[HistoryEntry]) -> int | None:
    """Return the version that shadows the champion, or None."""
    shadow = None
    for entry in history:
        if entry.event == "shadow":
            shadow = entry.version
        elif entry.event == "unshadow" or (entry.event != "publish" and entry.version == shadow):
            shadow = None
    return shadow


def etag_of_history(name: str, history: Sequence[HistoryEntry]) -> str:
    """Return the name of a state, which each line changes."""
    return etag_of(name, len(history), history[-1].to_json() if history else None)


def beginning_of(history: Sequence[HistoryEntry]) -> Beginning | None:
    """Return a model's beginning, None where that was a version."""
    return next((entry.beginning for entry in history if entry.event == "create"), None)


def deletion_of(history: Sequence[HistoryEntry]) -> HistoryEntry | None:
    """Return the line that deleted a model, unless it was restored since."""
    ends = [entry for entry in history if entry.event in ("delete", "restore")]
    return ends[-1] if ends and ends[-1].event == "delete" else None


def _entries(path: Path) -> Iterator[HistoryEntry]:
    """Yield the entries of a history.

    A line that is none, as a disk may leave it, is passed over.

    Raises:
        OperatorError: a newer Regraft wrote one that this one does not know: without it the champion may be another.
    """
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):  # after the last newline none is complete
        try:
            fields = json.loads(line)
            event = fields["event"]
        except (ValueError, TypeError, KeyError):
            continue
        unknown = sorted(fields.keys() - HistoryEntry.__annotations__.keys())
        if event not in _EVENTS or unknown:
            what = f"has {unknown[0]!r}" if unknown else f"says {event!r}"
            raise OperatorError(f"{path}: line {number} {what}, of which this Regraft knows nothing: upgrade it")
        with suppress(TypeError):
            yield HistoryEntry(**{**fields, "beginning": _beginning(fields.get("beginning"))})


def _beginning(fields: Mapping[str, Any] | None) -> Beginning | None:
    return Beginning(**fields) if fields else None
