"""Suggestions from the pictures of a store: the pool, and kept requests."""

import secrets
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np

from regraft.errors import ArtifactError
from regraft.model.artifact import FloatArray
from regraft.stores.examples import ExamplesStore
from regraft.stores.models import FEATURES_FILE, ModelStore
from serving.inference.models_in_memory import HeldModel, ServedModel
from serving.insight.labelled_pictures import embeddings_at
from serving.retraining.predictor import present_head
from serving.retraining.suggestions import Knowledge, Suggestion, suggest

_MOST_OF_POOL: Final = 2_000
"""As many of the pool, at random, are looked at for one answer; each embedding is in memory."""
_MOST_LABELLED: Final = 4_000
"""With as many labelled ones, at random, they are compared."""


@dataclass(frozen=True)
class Suggested:
    """A suggested picture.

    Attributes:
        sha256: of it.
        request_id: of the kept request that it comes from; empty: it is of the pool.
        suggestion: why.
    """

    sha256: str
    request_id: str
    suggestion: Suggestion


class Suggester:
    """A source of suggestions. Use it in threads for the database."""

    def __init__(self, models: ModelStore, examples: ExamplesStore) -> None:
        """Suggest pictures of ``examples`` for the versions of ``models``."""
        self._models = models
        self._examples = examples

    def suggest(self, held: HeldModel, count: int) -> list[Suggested]:
        """Suggest pictures of a model, with a version or without, the most useful first.

        There are ``count`` of them, or fewer.

        Raises:
            StorageError: the database refused.
        """
        pool = self._examples.pool.candidates(held.name, held.key, _MOST_OF_POOL, secrets.token_hex(32))
        kept = {each.sha256: each for each in self._examples.requests.unlabelled(held.name, held.key)}
        vectors = {**{sha256: each.embedding for sha256, each in kept.items()}, **pool}
        if not vectors:
            return []
        hashes = list(vectors)
        labelled, knowledge = self._labelled(held)
        chosen = suggest(np.array(list(vectors.values()), np.float32), labelled, knowledge, count)
        return [
            Suggested(sha256, kept[sha256].id if sha256 not in pool else "", suggestion)
            for suggestion in chosen
            for sha256 in (hashes[suggestion.row],)
        ]

    def image(self, suggested: Suggested) -> bytes:
        """Return the bytes of a suggested picture.

        Raises:
            NotFoundError: it was labelled, removed or dropped meanwhile.
            StorageError: they cannot be read.
        """
        if suggested.request_id:
            return self._examples.requests.image(self._examples.requests.find(suggested.request_id))
        return self._examples.pool.read(suggested.sha256)

    def _labelled(self, held: HeldModel) -> tuple[FloatArray, Knowledge | None]:
        """Return embeddings of labelled pictures [M, D], and the knowledge of the model.

        Where there are many pictures, it is some of them.
        """
        in_force = {example.sha256: example.label for example in self._examples.labels.in_force(held.name)}
        counts = Counter(in_force.values())
        trained = np.empty((0, held.head.weight.shape[1]), np.float32)
        if isinstance(held, ServedModel):
            trained = self._trained(held, in_force, counts, trained)
        others = list(in_force)
        newer = self._examples.embeddings.get(held.key, [others[row] for row in _some(len(others))])
        embedding = np.concatenate([trained, *(vector[None] for vector in newer.values())])
        if not isinstance(held, ServedModel):
            return embedding, None
        return embedding, Knowledge(held.head, held.card.labels, held.card.novelty_threshold, counts)

    def _trained(
        self, served: ServedModel, in_force: dict[str, str], counts: Counter[str], none: FloatArray
    ) -> FloatArray:
        """Return embeddings that a version was trained on, some where there are many.

        All its pictures leave ``in_force``, and ``counts`` gets their labels.
        """
        file = self._models.folder(served.name, served.version) / FEATURES_FILE
        with suppress(OSError, ValueError, KeyError, ArtifactError), np.load(file, allow_pickle=False) as features:
            of_label = np.bincount(features["label_index"], minlength=len(served.card.labels))
            names = zip(served.card.labels, present_head(self._examples, served).labels, of_label, strict=False)
            for label, now, number in names:
                counts[label] = max(counts[now], int(number))  # trained on includes most of what was sent
            for sha256 in features["sha256"]:
                in_force.pop(str(sha256), None)
            return np.concatenate([none, *embeddings_at(file, _some(len(features["sha256"])))])
        return none


def _some(count: int) -> list[int]:
    """Draw the rows that are compared, of so many."""
    return sorted(np.random.default_rng().permutation(count)[:_MOST_LABELLED].tolist())
