"""Fit a head as a card says: what a retrain does, and what proves afterwards that a version is what it says it is."""

from collections.abc import Mapping
from typing import Final

from regraft.model.card import ModelCard
from regraft.progress import Progress, silent
from training.head.features import Features
from training.head.fit import Additional, FittedHead, fit

REFITTED_WITH: Final[tuple[str, ...]] = ("balance", "views", "augment", "mirror", "target_error")
"""Settings of a training run that its retrains go by too."""


def refit(
    card: ModelCard,
    features: Features,
    further: Additional | None,
    progress: Progress = silent,
    *,
    missing: Mapping[str, int] | None = None,
) -> FittedHead:
    """Fit a head with the seed and the settings of a card.

    Args:
        card: of a version.
        features: training rows.
        further: rows beside them.
        progress: told the stage ``fit``.
        missing: see `fit`; None: as many as the card says.
    """
    balance = card.settings.get("balance", "auto")
    missing = card.settings.get("missing") if missing is None else missing
    return fit(features, progress, seed=card.seed, balance=balance, additional=further, missing=missing)
