"""First versions: what models without one lack."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from regraft.errors import PreconditionError, RegraftError
from regraft.stores.examples import ExamplesStore
from serving.inference.models_in_memory import BegunModel, HeldModel
from serving.inference.registry import WITHOUT_VERSION
from serving.threads import Threads

log = logging.getLogger("regraft.models")

CLASSES: Final = 2
PICTURES: Final = 2
"""Classes, and pictures of each, that a head can be made of (`training.retrain.classes`)."""
ENOUGH: Final = "a retrain: there are labels enough for a first version"
_COUNT_S: Final = 1.0
"""The longest count of labels that a refusal waits for."""


class FirstVersions:
    """A teller of the needs of models without a version."""

    def __init__(self, examples: ExamplesStore, threads: Threads) -> None:
        """Count the labels of ``examples``."""
        self._examples = examples
        self._threads = threads

    async def missing(self, model: str) -> str:
        """Return what a model needs for its first version, after "it needs"."""
        try:
            async with asyncio.timeout(_COUNT_S):
                return _missing(await self._count(model))
        except (RegraftError, TimeoutError) as error:
            log.warning("the labels of %s cannot be counted: %s", model, error or f"{_COUNT_S} s")
            return WITHOUT_VERSION

    async def check_enough(self, model: HeldModel) -> None:
        """Refuse a retrain that could make no head.

        Raises:
            PreconditionError: the model has no version, and too few labels for one.
            StorageError: the labels cannot be counted.
        """
        if isinstance(model, BegunModel) and (missing := _missing(await self._count(model.name))) != ENOUGH:
            raise PreconditionError(f"model {model.name!r} needs {missing}: label more, then retrain")

    async def _count(self, model: str) -> dict[str, int]:
        return await self._threads.database.run(self._examples.labels.by_label, model)


def _missing(counts: Mapping[str, int]) -> str:
    most = sorted(counts.values(), reverse=True)[:CLASSES]
    if len(most) == CLASSES and most[-1] >= PICTURES:
        return ENOUGH
    there_are = " and ".join(map(str, [*most, *[0] * (CLASSES - len(most))]))
    return f"{CLASSES} classes with {PICTURES} pictures each; there are {there_are}"
