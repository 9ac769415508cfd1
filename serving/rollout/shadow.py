"""Comparison of a shadow's head with the champion's, on the same embeddings."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from regraft.errors import PreconditionError
from regraft.model import artifact
from regraft.model.artifact import FloatArray, Head
from regraft.stores.models import MODEL_FILE, ModelStore
from serving.inference.models_in_memory import ServedModel

_ROWS: Final = 64
"""Embeddings of one matrix product: little enough for one thread, so that the lanes keep theirs."""

_MAX_FLIPS: Final = 1_000


@dataclass(frozen=True)
class Shadow:
    """A version whose head is in memory."""

    version: int
    labels: tuple[str, ...]
    head: Head


@dataclass(frozen=True)
class ShadowComparison:
    """Agreement of champion and shadow on the same pictures.

    Attributes:
        images: that both judged.
        agreed: those with the same label.
        confidence_shift: sum over the pictures of what the shadow gave its own label more than the champion its own.
        flips: pictures by (the champion's label, the shadow's), where they differ.
    """

    images: int = 0
    agreed: int = 0
    confidence_shift: float = 0.0
    flips: Counter[tuple[str, str]] = field(default_factory=Counter)

    def plus(self, other: "ShadowComparison") -> "ShadowComparison":
        """Return both together, with the commonest flips."""
        return ShadowComparison(
            self.images + other.images,
            self.agreed + other.agreed,
            self.confidence_shift + other.confidence_shift,
            Counter(dict((self.flips + other.flips).most_common(_MAX_FLIPS))),
        )


def load_shadow(store: ModelStore, version: int, champion: ServedModel) -> Shadow:
    """Read the head of a shadow from its whole file.

    Raises:
        NotFoundError: no such version.
        ArtifactError: it cannot be read.
        PreconditionError: it does not judge from the same embeddings.
    """
    loaded = artifact.read(store.folder(champion.name, version) / MODEL_FILE)
    card, serving = loaded.card, champion.card
    if card.backbone.digest != serving.backbone.digest:
        raise PreconditionError(
            f"version {version} has another backbone ({card.backbone.name}, {card.backbone.precision}) than the "
            f"champion, version {champion.version} ({serving.backbone.name}, {serving.backbone.precision}): a shadow "
            "judges from the champion's embeddings"
        )
    if card.image.digest() != serving.image.digest():
        raise PreconditionError(
            f"version {version} cuts pictures otherwise than the champion, version {champion.version}: a shadow judges "
            "from the champion's embeddings"
        )
    return Shadow(version, card.labels, loaded.head)


def compare_heads(
    champion: Sequence[str], answers: FloatArray, shadow: Shadow, embedding: FloatArray
) -> ShadowComparison:
    """Compare two heads; answers that are no numbers are left out.

    Args:
        champion: the champion's K labels.
        answers: float32 [n, K], the champion's probabilities.
        shadow: the other head.
        embedding: float32 [n, D], of the same pictures.
    """
    sound = np.isfinite(answers).all(axis=1) & np.isfinite(embedding).all(axis=1)
    answers, embedding = answers[sound], embedding[sound]
    if not len(answers):
        return ShadowComparison()
    rows = range(0, len(embedding), _ROWS)
    judged = np.concatenate([shadow.head.probabilities(embedding[row : row + _ROWS]) for row in rows])
    first = [champion[index] for index in answers.argmax(axis=1)]
    second = [shadow.labels[index] for index in judged.argmax(axis=1)]
    flips = Counter((one, other) for one, other in zip(first, second, strict=True) if one != other)
    shift = float((judged.max(axis=1) - answers.max(axis=1)).sum())
    return ShadowComparison(len(first), len(first) - flips.total(), shift, flips)
