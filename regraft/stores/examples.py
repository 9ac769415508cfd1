"""The store of labelled pictures: acknowledged means durable.

::

    <root>/images/ab/abcdef...      the picture's bytes, named by their SHA-256, on the disk before the row is written;
                                    or under a URL that fsspec reaches
    <root>/pictures/ab/abcdef...    pictures without a label yet, likewise, see `regraft.stores.unlabelled.pool`
    <root>/requests/ab/abcdef...    pictures of served requests, see `regraft.stores.unlabelled.requests`
    <root>/examples.sqlite          labels, embeddings, jobs, requests and the pool as rows; or a database given by URL
    <root>/locks/                   one lock a model, held by its retrain
"""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from regraft.errors import RegraftError, StorageError
from regraft.files import storage_errors
from regraft.label_rules import image_hash
from regraft.model.card import EmbeddingKey
from regraft.progress import Progress, silent
from regraft.stores.database.engine import close_database, database_at, prepare_database, refuse_work
from regraft.stores.embeddings import EmbeddingCache
from regraft.stores.images import (
    EXAMPLES_FOLDER,
    ImageFile,
    example_images,
    folder_of,
    images_at,
    is_remote,
    keep_again,
    keep_all,
)
from regraft.stores.jobs import RetrainJobs
from regraft.stores.labelling.bulk import BulkChanges
from regraft.stores.labelling.label_changes import LabelChanges
from regraft.stores.labelling.listing import Listing
from regraft.stores.labelling.predictions import Predictions
from regraft.stores.labels import AddOutcome, Labels, NewExample
from regraft.stores.lifecycle.forget import forget_rows, forget_some
from regraft.stores.originals import KeptOriginals, OriginalPicture, Originals
from regraft.stores.split import Split
from regraft.stores.unlabelled.pool import PicturePool
from regraft.stores.unlabelled.requests import KeptRequests

_WRITERS: Final = 8
_BATCH: Final = 256
"""Original pictures that are written together."""


class ExamplesStore:
    """A thread-safe store of labelled pictures; close it when done."""

    def __init__(self, root: Path, database_url: str = "", images_url: str = "", *, is_opened: bool = True) -> None:
        """Open the store in the folder ``root``.

        Locks are there, and all the rest that no URL is given for. Without ``is_opened`` neither disk nor database is
        touched before `open`.
        """
        self.locks = root / "locks"
        place = images_url.rstrip("/") or str(root)
        self._images = example_images(place)
        self._engine = database_at(database_url or URL.create("sqlite", database=str(root / "examples.sqlite")))
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="keep")
        self.labels = Labels(self._engine)
        self.originals = Originals(self._engine)
        self.bulk = BulkChanges(self._engine)
        self.label_changes = LabelChanges(self._engine)
        self.listing = Listing(self._engine)
        self.predictions = Predictions(self._engine)
        self.split = Split(self._engine)
        self.embeddings = EmbeddingCache(self._engine)
        self.jobs = RetrainJobs(self._engine)
        self.requests = KeptRequests(self._engine, images_at(f"{place}/requests"))
        self.pool = PicturePool(self._engine, images_at(f"{place}/pictures"), self._writers)
        if is_opened:
            self.open()

    def open(self) -> None:
        """Make the folders, and bring the database up to date.

        Until it has succeeded once, everything else fails.

        Raises:
            StorageError: the disk or the database refused.
        """
        try:
            with storage_errors("cannot open the examples store"):
                self.locks.mkdir(parents=True, exist_ok=True)
            prepare_database(self._engine)
            self.pool.drop_labelled()
        except StorageError as error:
            refuse_work(self._engine, str(error))
            raise

    def add(self, model: str, data: bytes, label: str, source: str = "") -> AddOutcome:
        """Keep one labelled picture; see `add_all`.

        Raises:
            InvalidRequestError: the label is no label, or the source no text.
            StorageError: the disk or the database refused; nothing of it was acknowledged.
        """
        return self.add_all(model, [NewExample(data, label, source)])[0]

    def add_all(
        self, model: str, batch: Sequence[NewExample], *, caller: str = "", hourly_quota: int = 0
    ) -> list[AddOutcome]:
        """Keep labelled pictures through ``kill -9`` and power cuts.

        Args:
            model: the model that they are for.
            batch: are kept together or, where an error is raised, not at all.
            caller: who sends them.
            hourly_quota: how many labels the caller may set or take away within an hour; those beyond it are REJECTED,
                and not written. 0: any.

        Returns:
            What became of each.

        Raises:
            InvalidRequestError: a label is no label, or a note no text.
            StorageError: the disk or the database refused; nothing of it was acknowledged.
        """
        for new in batch:
            new.check()
        foreseen = self.labels.foresee(model, batch, caller, hourly_quota)
        within = [new for new, outcome in zip(batch, foreseen, strict=True) if outcome is not AddOutcome.REJECTED]
        if not within:
            return foreseen
        again = partial(
            keep_again, self._writers, self._images, {new.sha256: partial(getattr, new, "data") for new in within}
        )
        with storage_errors("cannot keep the image"):
            keep_all(self._writers, self._images, within)
            recorded = iter(self.labels.record(model, within, caller, hourly_quota, again))
        outcomes = [outcome if outcome is AddOutcome.REJECTED else next(recorded) for outcome in foreseen]
        labelled = {
            new.sha256 for new, outcome in zip(batch, outcomes, strict=True) if outcome is not AddOutcome.REJECTED
        }
        with suppress(RegraftError):  # nobody sees a labelled one in the pool, and the next opening drops it
            self.pool.remove(model, labelled)
        return outcomes

    def keep_originals(
        self,
        model: str,
        pictures: Sequence[OriginalPicture],
        key: EmbeddingKey,
        *,
        annotator: str = "",
        is_live: bool = True,
        progress: Progress = silent,
    ) -> KeptOriginals:
        """Keep a training run's pictures, hard-linked where that can be.

        Those that are kept when an error comes stay so, and asking again goes on from there.

        Args:
            model: that was trained.
            pictures: distinct.
            key: of their embeddings.
            annotator: who trained it, for the history.
            is_live: whether the run's version goes live, see `Originals.record`.
            progress: told the stage ``keep``.

        Raises:
            StorageError: the disk, the object store or the database refused.
        """
        with storage_errors("cannot keep the pictures"):
            self._images.check_room({each.sha256: each.file for each in pictures})
        kept = KeptOriginals()
        for start in range(0, len(pictures), _BATCH):
            progress("keep", start, len(pictures))
            with storage_errors("cannot keep the pictures"):
                tried = [*self._writers.map(self._keep_original, pictures[start : start + _BATCH])]
            batch = [picture for picture, is_linked in tried if is_linked is not None]
            self.embeddings.put(key, {each.sha256: each.embedding for each in batch})
            again = partial(
                keep_again, self._writers, self._images, {each.sha256: each.file.read_bytes for each in batch}
            )
            with storage_errors("cannot keep the pictures"):
                recorded = self.originals.record(model, batch, annotator, again, is_live=is_live)
            kept += KeptOriginals(
                recorded,
                sum(is_linked is True for _, is_linked in tried),
                len(batch) - recorded,
                len(tried) - len(batch),
            )
        progress("keep", len(pictures), len(pictures))
        return kept

    def _keep_original(self, picture: OriginalPicture) -> tuple[OriginalPicture, bool | None]:
        """Keep a picture; return whether it is linked, None if changed."""
        try:
            data = picture.file.read_bytes()
        except OSError:
            return picture, None
        if image_hash(data) != picture.sha256:
            return picture, None
        return picture, self._images.keep_file(picture.sha256, picture.file, data)

    def image_file(self, sha256: str) -> ImageFile:
        """Return the file of the picture with this hash."""
        return self._images.file(sha256)

    def read(self, sha256: str) -> bytes:
        """Return the bytes of the picture with this hash.

        Raises:
            StorageError: they cannot be read.
        """
        with storage_errors("cannot read the picture"):
            return self._images.file(sha256).read_bytes()

    def forget(self, model: str) -> None:
        """Remove all that is kept of a model, but others' pictures.

        Nobody may use the model any more. After an error, or a crash, it may be repeated.

        Raises:
            StorageError: the disk or the database refused.
        """
        with storage_errors(f"cannot remove the pictures of {model!r}"):
            while forget_some(self._engine, model, self._unlink):
                pass
            while pictures := self.pool.page(model, most=_BATCH):
                self.pool.remove(model, {picture.sha256 for picture in pictures})
            self.requests.forget(model)
        forget_rows(self._engine, model)

    def _unlink(self, hashes: Collection[str]) -> None:
        list(self._writers.map(lambda sha256: self._images.file(sha256).unlink(missing_ok=True), hashes))

    def close(self) -> None:
        """Close the database."""
        self._writers.shutdown(wait=False)  # one that is stuck in a disk holds up no end
        close_database(self._engine)


def open_examples(store: Path, place: str = "", database: str = "", *, is_opened: bool = True) -> ExamplesStore:
    """Open the examples that belong to a model store.

    Args:
        store: the model store's folder; what needs a folder and has none lives in there.
        place: a folder for all of it, or a URL of fsspec for the pictures; `EXAMPLES_FOLDER` in the store if empty.
        database: URL; SQLite in the folder if empty.
        is_opened: or left to `ExamplesStore.open`.

    Raises:
        StorageError: the disk, the object store or the database refused.
        InvalidRequestError: a URL makes no sense.
        MissingPackageError: what such a URL needs is not installed.
    """
    if is_remote(place):
        return ExamplesStore(store / EXAMPLES_FOLDER, database, place, is_opened=is_opened)
    return ExamplesStore(folder_of(place) if place else store / EXAMPLES_FOLDER, database, is_opened=is_opened)
