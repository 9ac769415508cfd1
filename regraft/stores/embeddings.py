"""Embeddings by content, computed once and kept."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from sqlalchemy import Column, ColumnElement, Engine, Select, and_, select

from regraft.model.artifact import FloatArray
from regraft.model.card import EmbeddingKey
from regraft.stores.database.engine import in_parts, insert_or, reading, transaction
from regraft.stores.database.tables import embeddings


def under(key: EmbeddingKey) -> ColumnElement[bool]:
    """Select the embeddings of a key."""
    return and_(embeddings.c.backbone == key.backbone, embeddings.c.image_spec == key.image_spec)


def embedded(sha256: Column[str], key: EmbeddingKey) -> Select[tuple[str]]:
    """Select the embedding of a row's picture."""
    return select(embeddings.c.sha256).where(embeddings.c.sha256 == sha256, under(key))


class EmbeddingCache:
    """A thread-safe cache of embeddings, float32 [D], by image hash."""

    def __init__(self, engine: Engine) -> None:
        """Use the tables of ``engine``, see `regraft.stores.database.engine.open_database`."""
        self._engine = engine

    def get(self, key: EmbeddingKey, hashes: Iterable[str]) -> dict[str, FloatArray]:
        """Return the embeddings of images, by SHA-256 (hex), as far as known."""
        wanted = list(hashes)
        vectors: dict[str, FloatArray] = {}
        with reading(self._engine, "cannot read embeddings") as connection:
            for some in in_parts(wanted):
                query = select(embeddings.c.sha256, embeddings.c.vector)
                for sha256, vector in connection.execute(query.where(under(key), embeddings.c.sha256.in_(some))):
                    vectors[sha256] = np.frombuffer(vector, "<f4")
        return vectors

    def put(self, key: EmbeddingKey, vectors: Mapping[str, FloatArray]) -> None:
        """Keep embeddings; the first of an image stays, for equal refits."""
        rows: Sequence[dict[str, object]] = [
            {
                "sha256": sha256,
                "backbone": key.backbone,
                "image_spec": key.image_spec,
                "vector": vector.astype("<f4").tobytes(),
            }
            for sha256, vector in vectors.items()
        ]
        if rows:
            with transaction(self._engine, "cannot keep embeddings") as connection:
                connection.execute(insert_or(connection, embeddings).on_conflict_do_nothing(), rows)
