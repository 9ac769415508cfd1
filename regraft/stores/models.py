"""Model versions on disk: publish, the champion alias, history.

::

    <store>/<name>/<version>/      model.onnx, features.npz, report.html, report.json, and where a network was trained
                                   state.safetensors: immutable; appears by one rename
    <store>/<name>/history.jsonl   see `regraft.stores.lifecycle.history`
    <store>/<name>/golden/<label>/ pictures, if anybody puts some there, that every version has to answer rightly

The last line of the history that moves the alias IS the alias, so that the two cannot disagree. The numbered folders
are the layout that Triton and TensorFlow Serving read. Writers take a lock; readers never do. A model may begin without
a version, and end in the trash: `regraft.stores.lifecycle.folders`.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from regraft.cancellation import check_wanted
from regraft.datasets.folders import list_folder, subfolders
from regraft.errors import InvalidRequestError, NotFoundError, PreconditionError
from regraft.files import LOCK_PATIENCE_S, fsync_folder, locked, storage_errors, utc_now
from regraft.label_rules import nfc
from regraft.model_names import model_name
from regraft.stores.etags import check_etag
from regraft.stores.lifecycle.folders import LOCK_FILE, ModelFolders
from regraft.stores.lifecycle.history import (
    REQUEST,
    Beginning,
    Histories,
    HistoryEntry,
    append,
    beginning_of,
    champion_of,
    champions_of,
    deletion_of,
    etag_of_history,
    shadow_of,
)

MODEL_FILE: Final = "model.onnx"
FEATURES_FILE: Final = "features.npz"
REPORT_FILE: Final = "report.html"
REPORT_JSON_FILE: Final = "report.json"
STATE_FILE: Final = "state.safetensors"
"""The trained weights, which a later fine-tuning goes on from; nothing serves them."""

_GOLDEN: Final = "golden"
_STAGING: Final = ".staging"
_PUBLISHING_PATIENCE_S: Final = 600.0
"""How long a publication, after hours of training, waits for others, which copy whole files."""


class GateMode(StrEnum):
    """The authority over a version: gate, person or nobody."""

    AUTO = "auto"
    MANUAL = "manual"
    OFF = "off"


class ModelStore:
    """A folder of models, safe between threads and processes."""

    def __init__(self, root: Path) -> None:
        """Use the folder ``root``; it is created by the first publication."""
        self.root = root
        self._histories = Histories()
        self.folders = ModelFolders(root, self._histories)

    def names(self) -> list[str]:
        """Return the names of models that are not deleted, sorted."""
        return self.folders.names()

    def versions(self, name: str) -> list[int]:
        """Return the published versions of a model in ascending order."""
        folder = self._folder(name)
        if not folder.is_dir():
            return []
        return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal() and entry.is_dir())

    def folder(self, name: str, version: int) -> Path:
        """Return the folder of a version.

        Raises:
            NotFoundError: there is no such version; the text says which there are.
        """
        folder = self._folder(name) / str(version)
        if not folder.is_dir():
            there_are = ", ".join(map(str, self.versions(name))) or "none"
            raise NotFoundError(f"model {name!r} has no version {version} in {self.root} (it has: {there_are})")
        return folder

    def verdict(self, name: str, version: int) -> dict[str, Any] | None:
        """Return the gate's verdict on a version, if its report has one."""
        try:
            report = json.loads((self.folder(name, version) / REPORT_JSON_FILE).read_bytes())
            return dict(report["findings"]["verdict"])
        except (NotFoundError, OSError, ValueError, KeyError, TypeError):
            return None

    def golden(self, name: str) -> list[tuple[Path, str]]:
        """Return the golden pictures of a model and their labels, by file."""
        golden = self._folder(name) / _GOLDEN
        folders = subfolders(golden) if golden.is_dir() else []
        return [(path, nfc(each.name)) for each in folders for path in list_folder(each, deep=False).files]

    def find(self, wanted: str) -> tuple[str, int]:
        """Return name and version of ``NAME:VERSION``, or of ``NAME`` and its champion.

        Raises:
            InvalidRequestError: the version is no number.
            PreconditionError: no version is given, and there is no champion.
            NotFoundError: there is no such version.
        """
        name, _, number = wanted.partition(":")
        if number and not (number.isascii() and number.isdecimal()):
            raise InvalidRequestError(f"{wanted!r}: need NAME or NAME:VERSION, such as flowers:3")
        name, version = model_name(name), int(number) if number else self.champion(name)
        if version is None:
            raise PreconditionError(f"model {name!r} has no champion in {self.root}: name a version, as in {name}:1")
        self.folder(name, version)
        return name, version

    def publish(self, name: str, write: Callable[[Path], None], *, who: str, why: str, job: str = "") -> int:
        """Publish a new version.

        Args:
            name: the model; created if it is new.
            write: fills the folder it is given; when it raises, nothing is published.
            who: see `HistoryEntry`.
            why: see `HistoryEntry`.
            job: see `HistoryEntry`.

        Returns:
            The version's number, which was never used before.

        Raises:
            InvalidRequestError: it is new, and another differs from it by capital letters alone.
            ExistsError: it is new, and a model of this name is in the trash.
            NotFoundError: it was deleted meanwhile.
            StorageError: the disk refused; the store is as it was.
        """
        name = model_name(name)
        folder = self._folder(name)
        with storage_errors(f"cannot publish a version of {name!r}"):
            if name not in self.names():
                with self.folders.naming():
                    if name not in self.names():
                        self.folders.check_free(name)
                        folder.mkdir(exist_ok=True)
            with self._locked(name, _PUBLISHING_PATIENCE_S):
                staging = folder / _STAGING
                shutil.rmtree(staging, ignore_errors=True)  # left by a publisher that was killed: we hold the lock
                staging.mkdir()
                try:
                    write(staging)
                    _fsync_tree(staging)
                    version = self._next_version(name)
                    staging.rename(folder / str(version))
                except BaseException:
                    shutil.rmtree(staging, ignore_errors=True)
                    raise
                try:
                    fsync_folder(folder)
                    self._append(name, HistoryEntry("publish", version, self.champion(name), who, why, job, utc_now()))
                except BaseException:
                    (folder / str(version)).rename(staging)  # what the caller is told has failed must not be there
                    shutil.rmtree(staging, ignore_errors=True)
                    raise
        return version

    def champion(self, name: str) -> int | None:
        """Return the version that serves, or None while none was promoted."""
        return champion_of(self._read_history(name))

    def previous_champion(self, name: str) -> int | None:
        """Return the champion that a rollback goes back to, or None."""
        line = champions_of(self._read_history(name))
        return line[-2] if len(line) > 1 else None

    def move(
        self,
        name: str,
        to: int,
        *,
        who: str,
        why: str,
        event: Literal["promote", "rollback"] = "promote",
        expected: int | None = None,
        job: str = "",
        request_id: str = "",
    ) -> HistoryEntry:
        """Make a version the champion, by one line of history.

        Args:
            name: the model.
            to: the version, which must be published; the caller has tried that it answers.
            who: see `HistoryEntry`.
            why: see `HistoryEntry`.
            event: a rollback goes to the champion before, and to no other; two of them go back two.
            expected: if given, the champion this decision was based on; 0 where there was none.
            job: see `HistoryEntry`.
            request_id: a second call with the same one changes nothing, and returns what the first one did.

        Raises:
            NotFoundError: no such version.
            PreconditionError: the champion is no longer ``expected``, or a rollback would go elsewhere.
            InvalidRequestError: the request id belongs to something else.
            DeadlineError: nobody waits for it any more; see `regraft.cancellation`.
            StorageError: the disk refused; the champion is as it was.
        """
        if not self.moved_by(name, request_id, event, to):
            self.folder(name, to)
        with self._moving(name):
            if done := self.moved_by(name, request_id, event, to):
                return done
            champion = self._expect(name, expected)
            if event == "rollback" and (before := self.next_rollback(name)) != to:
                raise PreconditionError(f"a rollback of {name!r} leads to version {before} now, not {to}: look again")
            by = f"{REQUEST}{request_id}" if request_id else job
            entry = HistoryEntry(event, to, champion, who, why, by, utc_now())
            check_wanted()  # right before the line: who was told that the deadline passed must not see it work later
            self._append(name, entry)
        return entry

    def moved_by(
        self, name: str, request_id: str, event: Literal["promote", "rollback"], to: int
    ) -> HistoryEntry | None:
        """Return the line of history that a request brought about, or None.

        Args:
            name: the model.
            request_id: of the request; empty where it has none.
            event: what it asks for.
            to: the version that it asks for; of a rollback any.

        Raises:
            InvalidRequestError: the id belongs to something else.
        """
        entries = (entry for entry in self._read_history(name) if entry.request_id == request_id)
        done = next(entries, None) if request_id else None
        if done and (done.event != event or (event == "promote" and done.version != to)):
            raise InvalidRequestError(
                f"request_id: {request_id!r} was given to another request (it made version {done.version} of {name!r} "
                f"the champion, by {done.event}): give each an id of its own"
            )
        return done

    def next_rollback(self, name: str) -> int:
        """Return the version that a rollback would lead to.

        Raises:
            PreconditionError: there was no champion before this one.
        """
        version = self.previous_champion(name)
        if version is None:
            raise PreconditionError(f"model {name!r} has no earlier champion to go back to: promote a version instead")
        return version

    def shadow(self, name: str) -> int | None:
        """Return the version that shadows the champion, or None."""
        return shadow_of(self._read_history(name))

    def set_shadow(self, name: str, version: int | None, *, who: str, why: str, etag: str = "") -> HistoryEntry:
        """Let a version shadow the champion, or end that with None.

        ``etag`` is of the model as the caller saw it; empty: as it is.

        Raises:
            NotFoundError: no such version.
            PreconditionError: it is the champion, or there is no shadow that could end, or the etag is another by now.
            StorageError: the disk refused; everything is as it was.
        """
        if version is not None:
            self.folder(name, version)
        with self._moving(name):
            check_etag(etag, self.etag(name), f"model {name!r}")
            champion, shadow = self.champion(name), self.shadow(name)
            if version is not None and version == champion:
                raise PreconditionError(f"version {version} of {name!r} is the champion: it cannot shadow itself")
            if version is not None:
                entry = HistoryEntry("shadow", version, champion, who, why, "", utc_now())
            elif shadow is not None:
                entry = HistoryEntry("unshadow", shadow, champion, who, why, "", utc_now())
            else:
                raise PreconditionError(f"model {name!r} has no shadow")
            check_wanted()
            self._append(name, entry)
        return entry

    def etag(self, name: str) -> str:
        """Return the name of a state, which each line changes."""
        return etag_of_history(nfc(name), self._read_history(name))

    def history(self, name: str) -> list[HistoryEntry]:
        """Return every publication and move of the alias, oldest first."""
        return list(self._read_history(name))

    def beginning(self, name: str) -> Beginning | None:
        """Return a model's beginning, None where that was a version."""
        return beginning_of(self._read_history(name))

    def _folder(self, name: str) -> Path:
        return self.folders.of(name)

    def _expect(self, name: str, expected: int | None) -> int | None:
        """Return the champion if it is ``expected``; call under the lock."""
        champion = self.champion(name)
        if expected is not None and (champion or 0) != expected:
            is_now = f"is now version {champion}" if champion else "is no version now"
            raise PreconditionError(f"the champion of {name!r} {is_now}, not {expected or 'none'}: look again")
        return champion

    def _next_version(self, name: str) -> int:
        published = [entry.version for entry in self._read_history(name) if entry.event == "publish"]
        return max([0, *self.versions(name), *published]) + 1

    @contextmanager
    def _moving(self, name: str) -> Iterator[None]:
        with storage_errors(f"cannot move the champion of {name!r}"), self._locked(name):
            yield

    @contextmanager
    def _locked(self, name: str, patience_s: float = LOCK_PATIENCE_S) -> Iterator[None]:
        """Hold the lock of a model.

        Raises:
            NotFoundError: it was deleted while this waited.
        """
        folder = self._folder(name)
        with locked(folder / LOCK_FILE, patience_s):
            if deletion_of(self._read_history(name)) or not folder.is_dir():
                raise NotFoundError(f"model {name!r} was deleted meanwhile")
            yield

    def _append(self, name: str, entry: HistoryEntry) -> None:
        append(self._folder(name), entry)

    def _read_history(self, name: str) -> list[HistoryEntry]:
        return self._histories.of(self._folder(name))


def _fsync_tree(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    fsync_folder(folder)
