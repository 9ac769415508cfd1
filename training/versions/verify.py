"""Verification of a version: its head, fitted anew, has the same bytes."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from regraft.progress import Progress, silent
from regraft.stores.models import ModelStore
from training.head.fit import refit
from training.versions.publish import library_versions, measure_head
from training.versions.read import read_version

_REFITTED: Final = ("probe", "retrain", "upgrade")


@dataclass(frozen=True)
class Verified:
    """Findings of a verification.

    Attributes:
        data: whether the features beside the file are those that the card's digest was made of.
        metrics: whether the head gives the card's metrics on the holdout.
        head: whether fitting anew gives the same bytes; None where the head was not fitted on the features.
        largest_difference: of a probability, between the head fitted anew and the one in the file, over all pictures;
            with other libraries or another Regraft it tells rounding from other data.
        libraries: name to the version then and now, where they differ: these may round otherwise.
    """

    name: str
    version: int
    data: bool
    metrics: bool
    head: bool | None
    largest_difference: float | None
    strategy: str
    libraries: dict[str, tuple[str | None, str | None]]

    @property
    def holds(self) -> bool:
        """True where nothing speaks against the version."""
        return self.data and self.metrics and self.head is not False

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**vars(self), "holds": self.holds}


def verify(store: ModelStore, wanted: str, progress: Progress = silent) -> Verified:
    """Verify ``NAME:VERSION``, or the champion of ``NAME``.

    The digests of head and backbone are checked on reading.

    Raises:
        NotFoundError: there is no such version.
        PreconditionError: there is no champion.
        ArtifactError: the version is damaged.
    """
    name, version = store.find(wanted)
    stored = read_version(store, name, version)
    card, features = stored.artifact.card, stored.features
    now = library_versions()
    anew = refit(card, features, stored.additional, progress).head if card.strategy in _REFITTED else None
    answers = [head.probabilities(features.embedding) for head in (anew, stored.artifact.head) if head]
    return Verified(
        name,
        version,
        features.digest() == card.data_digest,
        measure_head(stored.artifact.head, features) == card.metrics,
        anew.digest() == card.head_digest if anew else None,
        float(np.abs(answers[0] - answers[1]).max()) if anew else None,
        card.strategy,
        {
            library: (card.libraries.get(library), now.get(library))
            for library in sorted(card.libraries.keys() | now.keys())
            if card.libraries.get(library) != now.get(library)
        },
    )
