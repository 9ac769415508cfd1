"""Folders of models: begun, moved into the trash, brought back, removed.

::

    <store>/<name>/                a model, see `regraft.stores.models`
    <store>/.trash/<name>/         a model that was deleted: all of it, kept for a while
    <store>/.trash/.purging/<name>/ one whose time is over, until all that belongs to it is gone elsewhere too

Each change is one line of the history and one rename, in the order that leaves a single state between the two: a folder
in its place whose history says that it is deleted. Such a model is not there, and `settle` puts it into the trash.
"""

import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Final

from regraft.cancellation import check_wanted
from regraft.errors import ExistsError, InvalidRequestError, NotFoundError, OperatorError
from regraft.files import fsync_folder, locked, storage_errors, utc_now
from regraft.label_rules import nfc
from regraft.model_names import case_variant, is_model_name, model_name
from regraft.stores.etags import check_etag
from regraft.stores.lifecycle.history import (
    REQUEST,
    Beginning,
    Event,
    Histories,
    HistoryEntry,
    append,
    beginning_of,
    champion_of,
    deletion_of,
    etag_of_history,
)

TRASH_FOLDER: Final = ".trash"
LOCK_FILE: Final = ".lock"
_PURGING: Final = ".purging"
_STAGING: Final = ".creating"
_GONE: Final = ".gone-"


@dataclass(frozen=True)
class DeletedModel:
    """A model in the trash.

    Attributes:
        name: of the model.
        deleted: the line of its history that put it there.
    """

    name: str
    deleted: HistoryEntry

    def kept_until(self, days: float) -> datetime:
        """Return the time of its removal from a trash of ``days``."""
        return datetime.fromisoformat(self.deleted.at).astimezone(UTC) + timedelta(days=days)


class ModelFolders:
    """The folders of a model store, safe between threads and processes."""

    def __init__(self, root: Path, histories: Histories) -> None:
        """Use the model store ``root``, whose histories are read by ``histories``."""
        self.root = root
        self.trash = root / TRASH_FOLDER
        self._histories = histories

    def names(self) -> list[str]:
        """Return the names of models that are not deleted, sorted."""
        return [name for name in _names_in(self.root) if not self._deletion(self.of(name))]

    def of(self, name: str) -> Path:
        """Return the folder of a model, there or not.

        Raises:
            InvalidRequestError: no model can be called so.
        """
        return _folder_in(self.root, model_name(name))

    def check_free(self, name: str) -> None:
        """Check that a model may begin under a name; call under `naming`.

        Raises:
            ExistsError: a model has it, or one in the trash.
            InvalidRequestError: another differs from it by capital letters alone.
        """
        if name in self.names():
            raise ExistsError(f"there is a model {name!r}: choose another name, or delete that one first")
        self.check_not_deleted(name)
        taken = {*self.names(), *(each.name for each in self.deleted()), *_names_in(self.trash / _PURGING)}
        if other := case_variant(name, taken):
            raise InvalidRequestError(f"model name {name!r}: some file systems take it for {other!r}, which is there")

    def check_not_deleted(self, name: str) -> None:
        """Check that no model of this name is in the trash.

        Raises:
            ExistsError: one is; the text says what to do.
        """
        if name in {each.name for each in self.deleted()}:
            raise ExistsError(
                f"a model {name!r} is in the trash: `regraft models restore {name}` brings it back, and its name is "
                "free when the trash lets go of it"
            )
        if name in _names_in(self.trash / _PURGING):
            raise ExistsError(f"a deleted model {name!r} is being removed just now: its name is free in a moment")

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Hold the lock under which names are taken and given up."""
        self.trash.mkdir(parents=True, exist_ok=True)
        with locked(self.trash / LOCK_FILE):
            yield

    def create(self, name: str, beginning: Beginning, *, who: str, why: str, request_id: str = "") -> HistoryEntry:
        """Begin a model, by one rename.

        Args:
            name: of the model.
            beginning: what it begins with; the caller has looked whether there is such a backbone.
            who: see `HistoryEntry`.
            why: see `HistoryEntry`.
            request_id: a second call with the same one changes nothing, and returns what the first one did.

        Raises:
            ExistsError: a model has the name, or one in the trash.
            InvalidRequestError: no model can be called so, a label is none, or the request id is of something else.
            StorageError: the disk refused; the store is as it was.
        """
        name = model_name(name)
        beginning.check()
        with storage_errors(f"cannot create {name!r}"), self.naming():
            if done := self._done_by(name, request_id, "create"):
                if done.beginning != beginning:
                    raise _belongs_to_another(request_id)
                return done
            self.check_free(name)
            staging = self.trash / _STAGING
            shutil.rmtree(staging, ignore_errors=True)  # left by one that was killed: we hold the lock
            staging.mkdir()
            try:
                entry = HistoryEntry("create", 0, None, who, why, _by(request_id), utc_now(), beginning)
                append(staging, entry)
                check_wanted()
                staging.rename(self.root / name)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
            fsync_folder(self.root)
        return entry

    def delete(self, name: str, *, who: str, why: str, etag: str = "", request_id: str = "") -> HistoryEntry:
        """Put a model into the trash.

        Args:
            name: of the model.
            who: see `HistoryEntry`.
            why: see `HistoryEntry`.
            etag: of the model as the caller saw it; empty: as it is.
            request_id: as in `create`.

        Raises:
            NotFoundError: there is no such model.
            PreconditionError: the etag is another by now.
            StorageError: the disk refused; the model is as it was.
        """
        name = model_name(name)
        with storage_errors(f"cannot delete {name!r}"), self.naming():
            if done := self._done_by(name, request_id, "delete"):  # and restored since
                return done
            folder = self.of(name)
            if not folder.is_dir():
                if deleted := self._trashed(name, request_id):
                    return deleted
                raise NotFoundError(f"there is no model {name!r} in {self.root}")
            with locked(folder / LOCK_FILE):
                history = self._histories.of(folder)
                entry = deletion_of(history)
                if entry is None:
                    check_etag(etag, etag_of_history(name, history), f"model {name!r}")
                    champion = champion_of(history)
                    entry = HistoryEntry("delete", 0, champion, who, why, _by(request_id), utc_now())
                    check_wanted()
                    append(folder, entry)
            self._into_trash(folder)
        return entry

    def restore(self, name: str, *, who: str, why: str, request_id: str = "") -> HistoryEntry:
        """Bring a model back from the trash.

        Args:
            name: of the model.
            who: see `HistoryEntry`.
            why: see `HistoryEntry`.
            request_id: as in `create`.

        Raises:
            NotFoundError: the trash has no such model.
            ExistsError: it is not deleted.
            StorageError: the disk refused; the model is deleted as before.
        """
        name = model_name(name)
        with storage_errors(f"cannot restore {name!r}"), self.naming():
            if done := self._done_by(name, request_id, "restore"):
                return done
            if name in self.names():
                raise ExistsError(f"model {name!r} is not deleted")
            trashed = _folder_in(self.trash, name)
            if trashed.is_dir():
                trashed.rename(self.root / trashed.name)
                fsync_folder(self.root)
                fsync_folder(self.trash)
            folder = self.of(name)
            if not folder.is_dir():
                raise NotFoundError(f"there is no model {name!r} in the trash of {self.root}")
            champion = champion_of(self._histories.of(folder))
            entry = HistoryEntry("restore", 0, champion, who, why, _by(request_id), utc_now())
            with locked(folder / LOCK_FILE):
                append(folder, entry)
        return entry

    def deleted(self) -> list[DeletedModel]:
        """Return the models in the trash, or on their way, by name."""
        found = {}
        for place in (self.root, self.trash):
            for name in _names_in(place):
                if deletion := self._deletion(_folder_in(place, name)):
                    found[name] = DeletedModel(name, deletion)
        return [found[name] for name in sorted(found)]

    def waiting_for(self, backbone: str) -> list[str]:
        """Return the models that began with a backbone and lack a champion.

        Those in the trash are among them.

        Raises:
            OperatorError: the history of a model cannot be read.
        """
        waiting = set()
        for place in (self.root, self.trash):
            for name in _names_in(place):
                history = self._histories.of(_folder_in(place, name))
                begun = beginning_of(history)
                if begun and begun.backbone == backbone and champion_of(history) is None:
                    waiting.add(name)
        return sorted(waiting)

    def settle(self) -> None:
        """Put deleted models into the trash that a crash left outside.

        Raises:
            StorageError: the disk refused.
        """
        self._sweep()
        with storage_errors("cannot tidy up the trash"):
            if not any(self._deletion(self.of(name)) for name in _names_in(self.root)):
                return
            with self.naming():
                for name in _names_in(self.root):
                    if self._deletion(self.of(name)):
                        self._into_trash(self.of(name))

    def begin_purge(self, model: DeletedModel) -> None:
        """Take a model, not to be restored, out of the trash.

        Raises:
            NotFoundError: it is not in the trash any more, or was put there again.
            StorageError: the disk refused.
        """
        with storage_errors(f"cannot remove {model.name!r}"), self.naming():
            trashed = _folder_in(self.trash, model.name)
            if self._deletion(trashed) != model.deleted:
                raise NotFoundError(f"there is no such model {model.name!r} in the trash of {self.root} any more")
            (self.trash / _PURGING).mkdir(exist_ok=True)
            trashed.rename(self.trash / _PURGING / trashed.name)
            fsync_folder(self.trash)

    def purging(self) -> list[str]:
        """Return the names of the models whose removal has begun."""
        return _names_in(self.trash / _PURGING)

    def end_purge(self, name: str) -> None:
        """Remove the folder of a model, whose name is free then."""
        with storage_errors(f"cannot remove {name!r}"), self.naming():
            folder = _folder_in(self.trash / _PURGING, name)
            if folder.is_dir():
                folder.rename(self.trash / f"{_GONE}{token_hex(8)}")
                fsync_folder(self.trash)
        self._sweep()

    def _sweep(self) -> None:
        for gone in self.trash.glob(f"{_GONE}*"):
            shutil.rmtree(gone, ignore_errors=True)

    def _deletion(self, folder: Path) -> HistoryEntry | None:
        """Return the line that deleted a model, None if not readable."""
        try:
            return deletion_of(self._histories.of(folder))
        except (OSError, MemoryError, OperatorError):  # it holds no other model up, and whoever asks for it hears why
            return None

    def _done_by(self, name: str, request_id: str, event: Event) -> HistoryEntry | None:
        """Return the line of a request in a model, if any.

        Raises:
            InvalidRequestError: the id belongs to something else.
        """
        if not request_id or name not in self.names():
            return None
        for entry in self._histories.of(self.of(name)):
            if entry.request_id == request_id and entry.event != event:
                raise _belongs_to_another(request_id)
            if entry.request_id == request_id:
                return entry
        return None

    def _trashed(self, name: str, request_id: str) -> HistoryEntry | None:
        """Return the line that deleted a model, if this request did."""
        deletion = self._deletion(_folder_in(self.trash, name))
        return deletion if deletion and request_id and deletion.request_id == request_id else None

    def _into_trash(self, folder: Path) -> None:
        folder.rename(self.trash / folder.name)
        fsync_folder(self.trash)
        fsync_folder(self.root)


def _by(request_id: str) -> str:
    return f"{REQUEST}{request_id}" if request_id else ""


def _belongs_to_another(request_id: str) -> InvalidRequestError:
    return InvalidRequestError(f"request_id: {request_id!r} was given to another request: give each an id of its own")


def _names_in(place: Path) -> list[str]:
    if not place.is_dir():
        return []
    names = {nfc(entry.name) for entry in place.iterdir() if entry.is_dir()}
    return sorted(filter(is_model_name, names))


def _folder_in(place: Path, name: str) -> Path:
    folder = place / name
    if name.isascii() or folder.is_dir():
        return folder
    taken_apart = place / unicodedata.normalize("NFD", name)  # as a Mac wrote it, and a copy kept it
    return taken_apart if taken_apart.is_dir() else folder
