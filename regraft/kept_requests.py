"""Served pictures that were kept with their prediction, so that the most useful ones can be labelled next.

They are a convenience: nothing is promised of them. The oldest are dropped to stay within the bounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, Engine, delete, func, insert, select

from regraft.artifact import FloatArray
from regraft.database import examples, kept_requests, reading, transaction
from regraft.embeddings import EmbeddingKey
from regraft.errors import NotFoundError
from regraft.files import storage_errors
from regraft.image_files import ImageFiles

_MOST_CANDIDATES: Final = 2_000
"""The newest; each holds its embedding in memory while suggestions are made."""


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


@dataclass(frozen=True)
class Bounds:
    """How much is kept; whichever is reached first counts."""

    requests: int = 10_000
    size_bytes: int = 2**30


class KeptRequests:
    """The table of kept requests, and their pictures. Thread-safe; shares the database that it is given."""

    def __init__(self, engine: Engine, images: ImageFiles) -> None:
        """Use the tables of ``engine``, see `regraft.database.open_database`, and keep pictures in ``images``."""
        self._engine = engine
        self._images = images

    def keep(self, batch: Sequence[tuple[KeptRequest, bytes]], bounds: Bounds) -> None:
        """Keep requests with their pictures' bytes, and drop the oldest that go beyond the bounds.

        Raises:
            StorageError: the disk or the database refused.
        """
        with storage_errors("cannot keep a request's picture"):
            for request, data in batch:
                self._images.keep(request.sha256, data, durably=False)
        rows = [_row(request, len(data)) for request, data in batch]
        with transaction(self._engine, "cannot keep requests") as connection:
            connection.execute(insert(kept_requests), rows)
            dropped = _drop_oldest(connection, bounds)
        with storage_errors("cannot remove a request's picture"):
            for sha256 in dropped:
                self._images.file(sha256).unlink(missing_ok=True)

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

    def unlabelled(self, model: str, key: EmbeddingKey) -> list[KeptRequest]:
        """Return the newest requests whose picture has no label yet, embedded under ``key``; each picture once."""
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
            .order_by(kept_requests.c.at.desc(), kept_requests.c.id)
            .limit(_MOST_CANDIDATES)
        )
        with reading(self._engine, "cannot read the requests") as connection:
            found = [_request(row) for row in connection.execute(query)]
        return list({request.sha256: request for request in reversed(found)}.values())


def _drop_oldest(connection: Connection, bounds: Bounds) -> list[str]:
    """Drop rows beyond the bounds; return the hashes of the pictures that nobody refers to any more."""
    newest_first = (kept_requests.c.at.desc(), kept_requests.c.id.desc())
    size_bytes = func.sum(kept_requests.c.size_bytes).over(order_by=newest_first)
    place = func.row_number().over(order_by=newest_first)
    ranked = select(
        kept_requests.c.id, kept_requests.c.sha256, size_bytes.label("total"), place.label("place")
    ).subquery()
    beyond = select(ranked.c.id, ranked.c.sha256).where(
        (ranked.c.total > bounds.size_bytes) | (ranked.c.place > bounds.requests)
    )
    dropped = connection.execute(beyond).all()
    if not dropped:
        return []
    connection.execute(delete(kept_requests).where(kept_requests.c.id.in_([row.id for row in dropped])))
    hashes = {row.sha256 for row in dropped}
    still = select(kept_requests.c.sha256).where(kept_requests.c.sha256.in_(hashes))
    return sorted(hashes - set(connection.execute(still).scalars()))


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
        "at": datetime.now(UTC).isoformat(timespec="microseconds"),
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
