"""Labelled images that people sent: acknowledged means durable.

::

    <root>/images/ab/abcdef...      the picture's bytes, named by their SHA-256, fsynced before the row is written
    <root>/examples.sqlite          rows: which picture has which label; or a database given by URL
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from regraft.database import embeddings, examples, open_database, reading, sqlite_url, transaction
from regraft.embeddings import EmbeddingCache, EmbeddingKey
from regraft.files import fsync_folder, storage_errors, write_durably
from regraft.labels import check_label
from regraft.retrain_jobs import RetrainJobs

FOLDER: Final = ".examples"
"""Where the examples live inside a model store unless another folder is given; the dot hides it from model scanners."""

HOLDOUT_SHARE: Final = 0.2
_IMAGES: Final = "images"


class AddOutcome(StrEnum):
    """What became of one example."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    RELABELLED = "relabelled"


@dataclass(frozen=True)
class Example:
    """A labelled picture; its bytes are found by the hash. ``source`` is free text."""

    sha256: str
    label: str
    source: str = ""


class ExamplesStore:
    """Labelled images, their embeddings and the retrain jobs of all models. Thread-safe; close it when done."""

    def __init__(self, root: Path, database_url: str = "") -> None:
        """Open the store in the folder ``root``, with SQLite inside it unless a database URL is given."""
        with storage_errors("cannot open the examples store"):
            self._root, self.images = root, root / _IMAGES
            self.images.mkdir(parents=True, exist_ok=True)
            self.locks = root / "locks"
            self.locks.mkdir(exist_ok=True)
            url = database_url or sqlite_url(root / "examples.sqlite")
        self._engine = open_database(url)
        self.embeddings = EmbeddingCache(self._engine)
        self.jobs = RetrainJobs(self._engine)

    def add(self, model: str, data: bytes, label: str, source: str = "") -> AddOutcome:
        """Keep one labelled picture. When this returns, it survives ``kill -9`` and a power cut.

        Args:
            model: the model it is for.
            data: an encoded picture, already found decodable.
            label: its class; a new one is allowed.
            source: where it came from, free text.

        Raises:
            InvalidRequestError: the label is no label.
            StorageError: the disk or the database refused; nothing of it was acknowledged.
        """
        check_label(label)
        sha256 = image_hash(data)
        path = self.image_path(sha256)
        with storage_errors("cannot keep the image"):
            if not path.exists():
                if not path.parent.exists():
                    path.parent.mkdir(exist_ok=True)
                    fsync_folder(self.images)
                write_durably(path, data)
        try:
            return self._record(model, sha256, label, source)
        except IntegrityError:  # somebody else added the same picture in between: now it is there
            return self._record(model, sha256, label, source)

    def _record(self, model: str, sha256: str, label: str, source: str) -> AddOutcome:
        here = (examples.c.model == model) & (examples.c.sha256 == sha256)
        with transaction(self._engine, "cannot keep the example") as connection:
            known = connection.execute(select(examples.c.label).where(here)).scalar_one_or_none()
            if known == label:
                return AddOutcome.DUPLICATE
            if known is not None:
                connection.execute(update(examples).where(here).values(label=label, source=source))
                return AddOutcome.RELABELLED
            added_at = datetime.now(UTC).isoformat(timespec="seconds")
            row = {"model": model, "sha256": sha256, "label": label, "source": source, "added_at": added_at}
            connection.execute(insert(examples).values(row))
            return AddOutcome.ACCEPTED

    def list(self, model: str) -> list[Example]:
        """Return the examples of a model, ordered by hash, so that the order of arrival cannot matter."""
        columns = (examples.c.sha256, examples.c.label, examples.c.source)
        query = select(*columns).where(examples.c.model == model).order_by(examples.c.sha256)
        with reading(self._engine, "cannot read the examples") as connection:
            return [Example(*row) for row in connection.execute(query)]

    def count(self, model: str) -> int:
        """Return how many examples a model has."""
        query = select(func.count()).select_from(examples).where(examples.c.model == model)
        with reading(self._engine, "cannot count the examples") as connection:
            return int(connection.execute(query).scalar_one())

    def without_embedding(self, model: str, key: EmbeddingKey, limit: int) -> Sequence[str]:
        """Return the hashes of at most ``limit`` examples of a model that have no embedding under ``key`` yet."""
        known = select(embeddings.c.sha256).where(
            embeddings.c.sha256 == examples.c.sha256,
            embeddings.c.backbone == key.backbone,
            embeddings.c.image_spec == key.image_spec,
        )
        query = select(examples.c.sha256).where(examples.c.model == model, ~known.exists())
        with reading(self._engine, "cannot read the examples") as connection:
            return [str(sha256) for (sha256,) in connection.execute(query.order_by(examples.c.sha256).limit(limit))]

    def image_path(self, sha256: str) -> Path:
        """Return where the picture with this hash is kept."""
        return kept_image(self._root, sha256)

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()


def kept_image(root: Path, sha256: str) -> Path:
    """Return where the examples store in the folder ``root`` keeps the picture with this hash, if it has it."""
    return root / _IMAGES / sha256[:2] / sha256


def image_hash(data: bytes) -> str:
    """Return the SHA-256 (hex) that names a picture."""
    return hashlib.sha256(data).hexdigest()


def is_holdout(sha256: str) -> bool:
    """Tell whether a picture belongs to the holdout: a pure function of its hash, so it is never trained on."""
    return int(sha256[:8], 16) < HOLDOUT_SHARE * 2**32
