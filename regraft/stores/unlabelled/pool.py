"""The pool: a model's pictures until they are labelled.

Acknowledged means durable, as for examples; nothing makes room by itself. Whatever a row names is on the disk: bytes
are written before it and removed after it, each time under one lock.
"""

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

import numpy as np
from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, delete, func, insert, select

from regraft.errors import NotFoundError
from regraft.files import storage_errors, utc_now
from regraft.label_rules import check_note
from regraft.model.artifact import FloatArray
from regraft.model.card import EmbeddingKey
from regraft.stores.database.engine import one_at_a_time, reading, transaction, unused
from regraft.stores.database.tables import embeddings, examples, pooled_pictures
from regraft.stores.embeddings import embedded, under
from regraft.stores.images import Bounds, EncodedPicture, ImageFile, ImageFiles, keep_again, keep_all

_LOCK: Final = "the pool"
_LISTED: Final = tuple(pooled_pictures.c[name] for name in ("id", "sha256", "size_bytes", "source", "added_at"))


class PoolOutcome(StrEnum):
    """The outcome of one picture that is sent without a label."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    LABELLED = "labelled"
    FULL = "full"
    REJECTED = "rejected"


_PROMISED: Final = (PoolOutcome.ACCEPTED, PoolOutcome.DUPLICATE)


@dataclass(frozen=True)
class NewPicture(EncodedPicture):
    """A picture that is sent without a label.

    Attributes:
        source: where it comes from, free text.
    """

    source: str = ""

    def check(self) -> None:
        """Check the source.

        Raises:
            InvalidRequestError: it is no text.
        """
        check_note("source", self.source)


@dataclass(frozen=True)
class PooledPicture:
    """A picture of the pool.

    Attributes:
        number: grows in the order of arrival.
        sha256: of its bytes.
        size_bytes: of it, encoded.
        source: where it came from, free text.
        added_at: UTC, ISO 8601.
    """

    number: int
    sha256: str
    size_bytes: int
    source: str
    added_at: str


@dataclass(frozen=True)
class Usage:
    """The part of a model's quota that is used."""

    pictures: int
    size_bytes: int


def pool_used_up(model: str, usage: Usage, bounds: Bounds) -> str:
    """Return the text of a refusal by quota."""
    return (
        f"quota: model {model!r} has {usage.pictures:,} pictures without labels, {usage.size_bytes:,} bytes; the most "
        f"are {bounds.pictures:,} (--pool-most) and {bounds.size_bytes:,} (--pool-bytes): label some, or remove them, "
        "and send this one again"
    )


class PicturePool:
    """A thread-safe table of pictures without labels, and their bytes."""

    def __init__(self, engine: Engine, images: ImageFiles, writers: Executor) -> None:
        """Use the tables of ``engine``, and let ``writers`` keep pictures in ``images``."""
        self._engine = engine
        self._images = images
        self._writers = writers

    def add(self, model: str, batch: Sequence[NewPicture], bounds: Bounds, caller: str = "") -> list[PoolOutcome]:
        """Keep pictures through ``kill -9`` and power cuts.

        Args:
            model: that they are for.
            batch: are kept together or, where an error is raised, not at all.
            bounds: of all that the model has; what is beyond them is FULL, and not written.
            caller: who sends them.

        Returns:
            The outcome of each; LABELLED: it is an example already, and not kept here.

        Raises:
            InvalidRequestError: a source is no text.
            StorageError: the disk or the database refused; nothing of it was acknowledged.
        """
        for new in batch:
            new.check()
        with reading(self._engine, "cannot read the pool") as connection:
            foreseen = _judge(connection, model, batch, bounds)
        with storage_errors("cannot keep the image"):
            keep_all(self._writers, self._images, _those(batch, foreseen, _PROMISED))  # slow, so not under the lock
        with (
            storage_errors("cannot keep the image"),
            transaction(self._engine, "cannot keep the pictures") as connection,
        ):
            one_at_a_time(connection, _LOCK)
            outcomes = _judge(connection, model, batch, bounds)
            # One that was there may have been removed since, and there may be more room than was foreseen.
            promised = {new.sha256: partial(getattr, new, "data") for new in _those(batch, outcomes, _PROMISED)}
            keep_again(self._writers, self._images, promised)
            rows = [
                {
                    "model": model,
                    "sha256": new.sha256,
                    "size_bytes": len(new.data),
                    "source": new.source,
                    "caller": caller,
                    "added_at": utc_now(),
                }
                for new in _those(batch, outcomes, (PoolOutcome.ACCEPTED,))
            ]
            if rows:
                connection.execute(insert(pooled_pictures), rows)
        return outcomes

    def find(self, model: str, sha256: str) -> PooledPicture:
        """Return a picture of a model that has no label.

        Raises:
            NotFoundError: there is none with this hash.
        """
        query = select(*_LISTED).where(_unlabelled(model), pooled_pictures.c.sha256 == sha256)
        with reading(self._engine, "cannot read the pool") as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(f"model {model!r} has no picture {sha256!r} without a label: send the picture itself")
        return PooledPicture(*row)

    def known(self, model: str, hashes: Collection[str]) -> set[str]:
        """Return those hashes that are pictures of a model without a label."""
        query = select(pooled_pictures.c.sha256).where(_unlabelled(model), pooled_pictures.c.sha256.in_(hashes))
        with reading(self._engine, "cannot read the pool") as connection:
            return set(connection.execute(query).scalars())

    def file(self, sha256: str) -> ImageFile:
        """Return the file of the picture with this hash."""
        return self._images.file(sha256)

    def read(self, sha256: str) -> bytes:
        """Return the bytes of the picture with this hash.

        Raises:
            NotFoundError: it was labelled or removed meanwhile.
            StorageError: they cannot be read.
        """
        with storage_errors("cannot read the picture"):
            try:
                return self._images.file(sha256).read_bytes()
            except FileNotFoundError as error:
                raise NotFoundError(f"picture {sha256!r} was labelled or removed meanwhile") from error

    def page(self, model: str, *, before: int = 0, most: int) -> list[PooledPicture]:
        """Return a page of a model's pictures, newest first.

        Args:
            model: whose pictures they are.
            before: leave out those from this number on; 0: none.
            most: no more than so many.
        """
        query = select(*_LISTED).where(_unlabelled(model)).order_by(pooled_pictures.c.id.desc()).limit(most)
        if before:
            query = query.where(pooled_pictures.c.id < before)
        with reading(self._engine, "cannot read the pool") as connection:
            return [PooledPicture(*row) for row in connection.execute(query)]

    def usage(self, model: str) -> Usage:
        """Return what a model's pictures take."""
        with reading(self._engine, "cannot read the pool") as connection:
            return _usage(connection, model)

    def remove(self, model: str, hashes: Iterable[str]) -> list[str]:
        """Remove pictures, bytes included; return the hashes of those that were there.

        Raises:
            StorageError: the disk or the database refused; what is removed by then stays so.
        """
        return self._remove(and_(pooled_pictures.c.model == model, pooled_pictures.c.sha256.in_(list(hashes))))

    def drop_labelled(self) -> None:
        """Remove labelled pictures that a crash left behind."""
        self._remove(_labelled().exists())

    def without_embedding(self, model: str, key: EmbeddingKey, limit: int, after: int = 0) -> dict[str, int]:
        """Return numbers of pictures without embedding, by hash, after ``after``."""
        place = pooled_pictures.c.id
        query = select(pooled_pictures.c.sha256, place).where(_unlabelled(model), place > after)
        query = query.where(~embedded(pooled_pictures.c.sha256, key).exists()).order_by(place).limit(limit)
        with reading(self._engine, "cannot read the pool") as connection:
            return {row.sha256: row.id for row in connection.execute(query)}

    def states(self, model: str, key: EmbeddingKey) -> dict[str, int]:
        """Count a model's pictures by state: embedded, waiting."""
        query = select(func.count()).select_from(pooled_pictures).where(_unlabelled(model))
        done = query.where(embedded(pooled_pictures.c.sha256, key).exists())
        with reading(self._engine, "cannot count the pool") as connection:
            present, ready = (int(connection.execute(each).scalar_one()) for each in (query, done))
        return {"embedded": ready, "waiting": present - ready}

    def candidates(self, model: str, key: EmbeddingKey, most: int, start: str = "") -> dict[str, FloatArray]:
        """Return embeddings, float32 [D], of pictures by hash.

        Args:
            model: whose pictures they are.
            key: of the embeddings.
            most: no more than so many.
            start: a hash to begin at, in the order of hashes, and on from the first one after the last: a random one
                makes a random choice of what is more than ``most``.
        """
        sha256 = pooled_pictures.c.sha256
        query = select(sha256, embeddings.c.vector).join(embeddings, and_(embeddings.c.sha256 == sha256, under(key)))
        query = query.where(_unlabelled(model)).order_by(sha256)
        found: dict[str, FloatArray] = {}
        with reading(self._engine, "cannot read the pool") as connection:
            for part in (query.where(sha256 >= start), query.where(sha256 < start)):
                for row in connection.execute(part.limit(most - len(found))):
                    found[row.sha256] = np.frombuffer(row.vector, "<f4")
        return found

    def _remove(self, which: ColumnElement[bool]) -> list[str]:
        with reading(self._engine, "cannot read the pool") as connection:
            if connection.execute(select(pooled_pictures.c.id).where(which).limit(1)).one_or_none() is None:
                return []  # as for most labels: nobody has to wait for a lock
        with transaction(self._engine, "cannot remove the pictures") as connection:
            one_at_a_time(connection, _LOCK)
            removed = connection.execute(delete(pooled_pictures).where(which).returning(pooled_pictures.c.sha256))
            hashes = list(removed.scalars())
        with transaction(self._engine, "cannot remove the pictures") as connection:
            one_at_a_time(connection, _LOCK)  # so that nobody takes a file for kept that goes now
            with storage_errors("cannot remove a picture"):
                for sha256 in unused(connection, pooled_pictures.c.sha256, hashes):
                    self._images.file(sha256).unlink(missing_ok=True)
        return hashes


def _judge(connection: Connection, model: str, batch: Sequence[NewPicture], bounds: Bounds) -> list[PoolOutcome]:
    """Judge a batch by what is there and the room left."""
    here, hashes = pooled_pictures.c.model == model, [new.sha256 for new in batch]
    pooled = select(pooled_pictures.c.sha256).where(here, pooled_pictures.c.sha256.in_(hashes))
    labelled = select(examples.c.sha256).where(examples.c.model == model, examples.c.sha256.in_(hashes))
    known = dict.fromkeys(connection.execute(pooled).scalars(), PoolOutcome.DUPLICATE)
    known |= dict.fromkeys(connection.execute(labelled).scalars(), PoolOutcome.LABELLED)
    used = _usage(connection, model)
    pictures, size_bytes = bounds.pictures - used.pictures, bounds.size_bytes - used.size_bytes
    outcomes = []
    for new in batch:
        if new.sha256 in known:
            outcomes.append(known[new.sha256])
        elif pictures < 1 or size_bytes < len(new.data):
            outcomes.append(PoolOutcome.FULL)
        else:
            pictures, size_bytes = pictures - 1, size_bytes - len(new.data)
            known[new.sha256] = PoolOutcome.DUPLICATE  # of this very batch
            outcomes.append(PoolOutcome.ACCEPTED)
    return outcomes


def _those(
    batch: Sequence[NewPicture], outcomes: Sequence[PoolOutcome], wanted: Collection[PoolOutcome]
) -> list[NewPicture]:
    return [new for new, outcome in zip(batch, outcomes, strict=True) if outcome in wanted]


def _usage(connection: Connection, model: str) -> Usage:
    query = select(func.count(), func.coalesce(func.sum(pooled_pictures.c.size_bytes), 0))
    pictures, size_bytes = connection.execute(query.where(pooled_pictures.c.model == model)).one()
    return Usage(int(pictures), int(size_bytes))


def _unlabelled(model: str) -> ColumnElement[bool]:
    return and_(pooled_pictures.c.model == model, ~_labelled().exists())


def _labelled() -> Select[tuple[str]]:
    return select(examples.c.sha256).where(
        examples.c.model == pooled_pictures.c.model, examples.c.sha256 == pooled_pictures.c.sha256
    )
