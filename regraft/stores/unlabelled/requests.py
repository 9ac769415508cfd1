"""Served pictures, kept with their prediction to be labelled.

They are a convenience: nothing is promised of them. The oldest are dropped to stay within the bounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import ColumnElement, Connection, Engine, delete, insert, select

from regraft.errors import NotFoundError
from regraft.files import storage_errors, utc_now
from regraft.model.artifact import FloatArray
from regraft.model.card import EmbeddingKey
from regraft.stores.database.engine import one_at_a_time, reading, transaction, unused
from regraft.stores.database.tables import examples, kept_requests
from regraft.stores.images import Bounds, ImageFiles

_LOCK: Final = "kept requests"
_MOST_CANDIDATES: Final = 2_000
"""The newest requests are candidates; each holds its embedding in memory."""
_MOST_DROPPED: Final = 1_000
"""The most dropped at once, oldest first: lowered bounds shrink the table by batches."""


@dataclass(frozen=True, eq=False)
class KeptRequest:
    """One served picture.

    Attributes:
        id: of the request, as its answer told.
        model: that answered.
        version: likewise.
        sha256: of the picture.
        label: the answer.
        probability: of the answer.
        novelty: 0 to 2.
        key: what the embedding depends on.
        embedding: float32 [D].
    """

    id: str
    model: str
    version: int
    sha256: str
    label: str
    probability: float
    novelty: float
    key: EmbeddingKey
    embedding: FloatArray


class KeptRequests:
    """A thread-safe table of kept requests, and their pictures."""

    def __init__(self, engine: Engine, images: ImageFiles) -> None:
        """Use the tables of ``engine``, see `open_database`, and keep pictures in ``images``."""
        self._engine = engine
        self._images = images

    def keep(self, batch: Sequence[tuple[KeptRequest, bytes]], bounds: Bounds) -> None:
        """Keep requests and pictures, and drop the oldest beyond bounds.

        Raises:
            StorageError: the disk or the database refused.
        """
        with storage_errors("cannot keep a request's picture"):
            for request, data in batch:
                self._images.keep(request.sha256, data, durably=False)
        if not batch:
            return
        with transaction(self._engine, "cannot keep requests") as connection:
            one_at_a_time(connection, _LOCK)
            number, total_bytes = _append(connection, batch)
            dropped = _drop_oldest(connection, bounds, number, total_bytes)
        self._unlink(dropped)

    def forget(self, model: str) -> None:
        """Drop all requests of a model.

        Raises:
            StorageError: the disk or the database refused.
        """
        place, is_there = kept_requests.c.number, True
        while is_there:
            with transaction(self._engine, "cannot drop the requests") as connection:
                one_at_a_time(connection, _LOCK)
                some = select(place).where(kept_requests.c.model == model).limit(_MOST_DROPPED)
                numbers = connection.execute(some).scalars().all()
                dropped = _drop(connection, place.in_(numbers))
            self._unlink(dropped)
            is_there = len(numbers) == _MOST_DROPPED

    def find(self, request_id: str) -> KeptRequest:
        """Return the request with this id.

        Raises:
            NotFoundError: it was not kept, or is kept no longer.
        """
        query = select(kept_requests).where(kept_requests.c.id == request_id)
        with reading(self._engine, "cannot read the request") as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(f"request {request_id!r} was not kept: send the picture itself")
        return _request(row)

    def image(self, request: KeptRequest) -> bytes:
        """Return the picture of a request.

        Raises:
            NotFoundError: it was dropped meanwhile.
            StorageError: it cannot be read.
        """
        with storage_errors("cannot read the request's picture"):
            try:
                return self._images.file(request.sha256).read_bytes()
            except FileNotFoundError as error:
                raise NotFoundError(f"request {request.id!r} was not kept: send the picture itself") from error

    def _unlink(self, hashes: Sequence[str]) -> None:
        with storage_errors("cannot remove a request's picture"):
            for sha256 in hashes:
                self._images.file(sha256).unlink(missing_ok=True)

    def unlabelled(self, model: str, key: EmbeddingKey) -> list[KeptRequest]:
        """Return the newest unlabelled requests under ``key``, each picture once."""
        labelled = select(examples.c.sha256).where(
            examples.c.model == kept_requests.c.model, examples.c.sha256 == kept_requests.c.sha256
        )
        query = (
            select(kept_requests)
            .where(
                kept_requests.c.model == model,
                kept_requests.c.backbone == key.backbone,
                kept_requests.c.image_spec == key.image_spec,
                ~labelled.exists(),
            )
            .order_by(kept_requests.c.number.desc())
            .limit(_MOST_CANDIDATES)
        )
        with reading(self._engine, "cannot read the requests") as connection:
            newest = [_request(row) for row in connection.execute(query)]
        return list({request.sha256: request for request in reversed(newest)}.values())


def _append(connection: Connection, batch: Sequence[tuple[KeptRequest, bytes]]) -> tuple[int, int]:
    """Append rows; return the last number, and the bytes ever kept."""
    ends = kept_requests.c.bytes_before + kept_requests.c.size_bytes
    newest = select(kept_requests.c.number, ends).order_by(kept_requests.c.number.desc()).limit(1)
    number, total_bytes = connection.execute(newest).one_or_none() or (0, 0)
    rows = []
    for request, data in batch:
        number += 1
        rows.append({**_row(request, len(data)), "number": number, "bytes_before": total_bytes})
        total_bytes += len(data)
    connection.execute(insert(kept_requests), rows)
    return number, total_bytes


def _drop_oldest(connection: Connection, bounds: Bounds, number: int, total_bytes: int) -> list[str]:
    """Drop rows beyond the bounds; return hashes of unused pictures."""
    place, before = kept_requests.c.number, kept_requests.c.bytes_before
    oldest = connection.execute(select(place).order_by(place).limit(1)).scalar_one()
    fitting = select(place).where(before >= total_bytes - bounds.size_bytes).order_by(before, place).limit(1)
    first_fitting = connection.execute(fitting).scalar_one_or_none() or number + 1
    keep_from = min(max(first_fitting, number - bounds.pictures + 1), oldest + _MOST_DROPPED)
    return _drop(connection, place < keep_from)


def _drop(connection: Connection, which: ColumnElement[bool]) -> list[str]:
    """Drop rows; return hashes of pictures that no other row has."""
    dropped = delete(kept_requests).where(which).returning(kept_requests.c.sha256)
    return unused(connection, kept_requests.c.sha256, set(connection.execute(dropped).scalars()))


def _row(request: KeptRequest, size_bytes: int) -> dict[str, Any]:
    fields = {name: getattr(request, name) for name in ("id", "model", "version", "sha256", "label")}
    return {
        **fields,
        "probability": request.probability,
        "novelty": request.novelty,
        "backbone": request.key.backbone,
        "image_spec": request.key.image_spec,
        "embedding": request.embedding.astype("<f4").tobytes(),
        "size_bytes": size_bytes,
        "at": utc_now("microseconds"),
    }


def _request(row: Any) -> KeptRequest:  # noqa: ANN401 - a row of the table
    return KeptRequest(
        row.id,
        row.model,
        row.version,
        row.sha256,
        row.label,
        row.probability,
        row.novelty,
        EmbeddingKey(row.backbone, row.image_spec),
        np.frombuffer(row.embedding, "<f4"),
    )
