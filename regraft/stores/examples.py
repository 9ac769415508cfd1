"""The store of labelled pictures: acknowledged means durable.

::

    <root>/images/ab/abcdef...      the picture's bytes, named by their SHA-256, on the disk before the row is written;
                                    or under a URL that fsspec reaches
    <root>/requests/ab/abcdef...    pictures of served requests, see `regraft.stores.requests`
    <root>/examples.sqlite          labels, embeddings, jobs and requests as rows; or a database given by URL
    <root>/locks/                   one lock a model, held by its retrain
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from regraft.errors import StorageError
from regraft.files import storage_errors
from regraft.stores.database.engine import close_database, database_at, prepare_database, refuse_work
from regraft.stores.embeddings import EmbeddingCache
from regraft.stores.images import EXAMPLES_FOLDER, ImageFile, example_images, folder_of, images_at, is_remote
from regraft.stores.jobs import RetrainJobs
from regraft.stores.labels import AddOutcome, Labels, NewExample
from regraft.stores.requests import KeptRequests
from regraft.stores.split import Split

_WRITERS: Final = 8


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
        self.split = Split(self._engine)
        self.embeddings = EmbeddingCache(self._engine)
        self.jobs = RetrainJobs(self._engine)
        self.requests = KeptRequests(self._engine, images_at(f"{place}/requests"))
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
        with storage_errors("cannot keep the image"):
            # Most of the time goes into waiting for the disk, which may as well be done for several at once.
            list(self._writers.map(lambda new: self._images.keep(new.sha256, new.data), within))
        recorded = iter(self.labels.record(model, within, caller, hourly_quota))
        return [outcome if outcome is AddOutcome.REJECTED else next(recorded) for outcome in foreseen]

    def image_file(self, sha256: str) -> ImageFile:
        """Return the file of the picture with this hash."""
        return self._images.file(sha256)

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
