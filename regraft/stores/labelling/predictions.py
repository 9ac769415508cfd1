"""Answers of a head on a model's examples, kept for lists."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import ColumnElement, Engine, Select, Table, and_, bindparam, delete, func, literal, select, text

from regraft.model.artifact import FloatArray
from regraft.model.card import EmbeddingKey
from regraft.stores.database.engine import insert_or, reading, transaction
from regraft.stores.database.tables import embeddings, examples, predictions
from regraft.stores.embeddings import under

_KEY_CHARACTERS: Final = 16
UNKNOWN_LABEL: Final = -1.0
"""The doubt about a label that the head does not know: nobody can say."""


@dataclass(frozen=True)
class Prediction:
    """A head's answer on an example.

    Attributes:
        label: the answer, as the label is called now.
        probability: of the answer.
        label_probability: of the example's own label; None: the head does not know it.
        novelty: 0 to 2.
        doubt: 1 less the probability of its own label, by heads that were not fitted on the picture where there are
            such; `UNKNOWN_LABEL` where the head does not know it.
        is_right: the answer is the example's label.
        is_suspected: its label is likely wrong.
        is_unseen: ``doubt`` is of heads that were not fitted on the picture.
    """

    label: str
    probability: float
    label_probability: float | None
    novelty: float
    doubt: float
    is_right: bool
    is_suspected: bool
    is_unseen: bool


COLUMNS: Final = tuple(predictions.c[name] for name in Prediction.__dataclass_fields__)
"""Columns of `Prediction`, with its fields in order."""


@dataclass(frozen=True)
class Unpredicted:
    """Examples, n of them, whose answers are to be made.

    Attributes:
        sha256: ascending.
        label: their labels, as the rows have them.
        embedding: float32 [n, D].
    """

    sha256: tuple[str, ...]
    label: tuple[str, ...]
    embedding: FloatArray

    def __len__(self) -> int:
        """Return n."""
        return len(self.sha256)


def head_key(head_digest: str, key: EmbeddingKey, labels: Sequence[str]) -> str:
    """Return the name of a head's answers.

    Args:
        head_digest: of its weights.
        key: of the embeddings.
        labels: what its rows are called now.
    """
    state = json.dumps([head_digest, key.backbone, key.image_spec, labels])
    return hashlib.sha256(state.encode()).hexdigest()[:_KEY_CHARACTERS]


def holds(head: str) -> ColumnElement[bool]:
    """Select a head's predictions of an example's present label."""
    return and_(
        predictions.c.model == examples.c.model,
        predictions.c.head == head,
        predictions.c.sha256 == examples.c.sha256,
        predictions.c.of_label == examples.c.label,
    )


def exists_by_key(table: Table, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Tell whether a table has a row, by a look a row.

    With an offset PostgreSQL makes no join of it: where it has no statistics of a table yet, it would compare all with
    all.
    """
    return select(literal(1)).select_from(table).where(*conditions).offset(0).exists()


class Predictions:
    """A thread-safe table of predictions, by head."""

    def __init__(self, engine: Engine) -> None:
        """Use the tables of ``engine``, see `regraft.stores.database.engine.open_database`."""
        self._engine = engine

    def missing(self, model: str, head: str, key: EmbeddingKey, *, after: str = "", most: int) -> Unpredicted:
        """Return embedded examples without a prediction of their label, by hash.

        Args:
            model: whose they are.
            head: of `head_key`.
            key: of the embeddings.
            after: only those whose hash comes after this one.
            most: no more than so many.
        """
        query: Select[Any] = (
            select(examples.c.sha256, examples.c.label)
            .where(
                examples.c.model == model,
                examples.c.sha256 > after,
                ~exists_by_key(predictions, holds(head)),
                exists_by_key(embeddings, embeddings.c.sha256 == examples.c.sha256, under(key)),
            )
            .order_by(examples.c.sha256)
            .limit(most)
        )
        with reading(self._engine, "cannot read the examples") as connection:
            rows = connection.execute(query).all()
            hashes = [row.sha256 for row in rows]
            there = select(embeddings.c.sha256, embeddings.c.vector).where(embeddings.c.sha256.in_(hashes), under(key))
            vectors = {row.sha256: np.frombuffer(row.vector, "<f4") for row in connection.execute(there)}
        embedding = np.array([vectors[sha256] for sha256 in hashes], np.float32)
        return Unpredicted(tuple(hashes), tuple(row.label for row in rows), embedding)

    def put(self, model: str, head: str, examples: Unpredicted, made: Sequence[Prediction]) -> None:
        """Keep the predictions of examples, in place of older ones.

        Raises:
            StorageError: the database refused; all is as it was.
        """
        rows = [
            {"model": model, "head": head, "sha256": sha256, "of_label": label, **vars(prediction)}
            for sha256, label, prediction in zip(examples.sha256, examples.label, made, strict=True)
        ]
        if not rows:
            return
        with transaction(self._engine, "cannot keep predictions") as connection:
            upsert = insert_or(connection, predictions)
            changes = {name: upsert.excluded[name] for name in ("of_label", *Prediction.__dataclass_fields__)}
            connection.execute(
                upsert.on_conflict_do_update(index_elements=["model", "head", "sha256"], set_=changes), rows
            )

    def gather_statistics(self) -> None:
        """Let PostgreSQL look at what was just written.

        It does so by itself, a minute later; until then it takes a head for a rarity, and compares all with all.
        """
        if self._engine.dialect.name == "postgresql":
            with transaction(self._engine, "cannot look at the predictions") as connection:
                connection.execute(text(f"ANALYZE {predictions.name}, {examples.name}"))

    def pending(self, model: str, head: str) -> int:
        """Count the examples whose prediction is still to be made."""
        made = select(predictions.c.sha256).where(holds(head)).exists()
        query = select(func.count()).select_from(examples).where(examples.c.model == model, ~made)
        with reading(self._engine, "cannot count predictions") as connection:
            return int(connection.execute(query).scalar_one())

    def drop_others(self, model: str, heads: Collection[str], most: int) -> int:
        """Drop some predictions of other heads; return how many."""
        key = predictions.c.head, predictions.c.sha256
        query = select(*key).where(predictions.c.model == model, predictions.c.head.not_in(heads)).limit(most)
        with transaction(self._engine, "cannot drop predictions") as connection:
            rows = [{"of_head": row.head, "of_picture": row.sha256} for row in connection.execute(query)]
            mine = predictions.c.model == model, key[0] == bindparam("of_head"), key[1] == bindparam("of_picture")
            if rows:
                connection.execute(delete(predictions).where(*mine), rows)
        return len(rows)
