"""Background answers of the serving heads on all examples, for lists.

They are made of stored embeddings, a few hundred at a time and behind whatever else needs a thread, again after a swap
or a change of labels, and for what was labelled or embedded since.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.errors import ArtifactError, NotFoundError
from regraft.label_rules import nfc
from regraft.model.artifact import FloatArray, Head
from regraft.model.fitted_pictures import FittedPictures
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.predictions import UNKNOWN_LABEL, Prediction, Unpredicted, head_key
from regraft.stores.labelling.present_names import KnownLabels, called_now
from regraft.stores.models import FEATURES_FILE, ModelStore
from serving.inference.models_in_memory import ServedModel
from serving.inference.registry import ModelRegistry
from serving.supervisor import do_all

log = logging.getLogger("regraft.predictor")

_CHUNK: Final = 512
_DROPPED: Final = 2_000
_EVERY_S: Final = 10.0
_SUSPECT: Final = 0.9
"""From this doubt on, and where it is answered otherwise, a label is likely wrong."""


@dataclass(frozen=True)
class PresentHead:
    """A serving head as its labels are called now.

    Attributes:
        key: of its predictions.
        labels: K of them; two may be one by now.
    """

    key: str
    labels: tuple[str, ...]


def known_labels(served: ServedModel) -> KnownLabels:
    """Return the labels of a version, with their time."""
    return KnownLabels(served.card.labels, served.card.labels_as_of)


def present_head(examples: ExamplesStore, served: ServedModel) -> PresentHead:
    """Return the head that serves, under the present names of its labels.

    It reads the database. A label that was removed is answered still, until a retrain, and keeps its name.
    """
    card = served.card
    changes = examples.label_changes.since(served.name, card.labels_as_of)
    labels = tuple(called_now(label, changes) or nfc(label) for label in card.labels)
    return PresentHead(head_key(card.head_digest, served.key, labels), labels)


def predict(head: Head, labels: Sequence[str], todo: Unpredicted, fitted: FittedPictures) -> list[Prediction]:
    """Answer examples, and say how much their labels are to be doubted.

    Args:
        head: that answers.
        labels: of its rows, as they are called now.
        todo: the examples.
        fitted: what the head was fitted on.
    """
    names = list(dict.fromkeys(labels))
    row_of = np.array([names.index(label) for label in labels])
    probabilities = _merged(head.probabilities(todo.embedding), row_of, len(names))
    novelty, answers = head.novelty(todo.embedding), probabilities.argmax(axis=1)
    own = np.array([names.index(label) if label in names else -1 for label in map(nfc, todo.label)])
    is_as_fitted = np.bincount(row_of)[own] == 1  # or what was kept is of a part of it
    rows = np.arange(len(own))
    of_label = probabilities[rows, own]
    doubt, judged, unseen = 1.0 - of_label.astype(np.float64), answers.copy(), np.ones(len(own), np.bool_)
    for row, picture in enumerate(fitted.rows(todo.sha256)):
        if picture < 0:
            continue
        answer, fitted_on = fitted.answer_index[picture], row_of[fitted.label_index[picture]]
        unseen[row] = answer >= 0 and fitted_on == own[row] and is_as_fitted[row]
        if unseen[row]:
            doubt[row], judged[row] = 1.0 - float(fitted.label_probability[picture]), row_of[answer]
    return [
        Prediction(
            label=names[answers[row]],
            probability=float(probabilities[row, answers[row]]),
            label_probability=float(of_label[row]) if own[row] >= 0 else None,
            novelty=float(novelty[row]),
            doubt=float(doubt[row]) if own[row] >= 0 else UNKNOWN_LABEL,
            is_right=bool(answers[row] == own[row]),
            is_suspected=bool(own[row] >= 0 and doubt[row] >= _SUSPECT and judged[row] != own[row]),
            is_unseen=bool(unseen[row]),
        )
        for row in rows
    ]


class ExamplePredictor:
    """A keeper of predictions.

    Call `look` every so often, from one event loop.
    """

    def __init__(self, models: ModelRegistry, examples: ExamplesStore, every_s: float = _EVERY_S) -> None:
        """Answer the examples of the models that are served.

        Args:
            models: the registry.
            examples: their examples, and their answers.
            every_s: how often to look for what other processes labelled or embedded.
        """
        self._models = models
        self._examples = examples
        self._threads = models.threads
        self._every_s = every_s
        self._answered: dict[str, int] = {}  # the version that answered last
        self._woken: set[str] = set()
        self._due_s: dict[str, float] = {}
        self._fitted: tuple[ServedModel, FittedPictures] | None = None  # of the model that was answered last

    def wake(self, name: str) -> None:
        """Look at a model's examples soon: some were labelled or embedded."""
        self._woken.add(name)

    async def look(self) -> None:
        """Make the predictions that are missing, where some may be."""
        names = self._models.names()
        for gone in self._due_s.keys() - set(names):
            del self._due_s[gone]
            self._answered.pop(gone, None)
            self._woken.discard(gone)
        await do_all([partial(self._look_at, name) for name in names])

    async def _look_at(self, name: str) -> None:
        clock = asyncio.get_running_loop().time
        with self._models.acquire(name) as served:
            is_other = self._answered.get(name) != served.version
            if not (is_other or name in self._woken or clock() >= self._due_s.get(name, 0.0)):
                return
            self._woken.discard(name)  # before the database is asked: what comes meanwhile may have come too late
            self._due_s[name] = clock() + self._every_s
            head = await self._threads.database.run(present_head, self._examples, served)
            if await self._answer_all(served, head, is_first=is_other) and is_other:
                await self._drop_others(name, head.key)
                self._answered[name] = served.version

    async def _answer_all(self, served: ServedModel, head: PresentHead, *, is_first: bool) -> bool:
        """Answer what is missing; False where another version serves meanwhile."""
        name, table, made, after = served.name, self._examples.predictions, 0, ""
        while todo := await self._threads.database.run(
            partial(table.missing, name, head.key, served.key, after=after, most=_CHUNK)
        ):
            fitted = await self._fitted_pictures(served)
            answers = await self._threads.database.run(predict, served.head, head.labels, todo, fitted)
            await self._threads.writes.run(table.put, name, head.key, todo, answers)
            if is_first and not made:
                await self._threads.writes.run(table.gather_statistics)
            made, after = made + len(answers), todo.sha256[-1]
            if self._models.get(name) is not served:
                return False
        if made:
            log.info("model %s: version %d answered %d examples", name, served.version, made)
        return True

    async def _drop_others(self, name: str, head: str) -> None:
        drop = self._examples.predictions.drop_others
        while await self._threads.writes.run(drop, name, {head}, _DROPPED):
            pass

    async def _fitted_pictures(self, served: ServedModel) -> FittedPictures:
        if self._fitted is None or self._fitted[0] is not served:
            fitted = await self._threads.store.run(_read_fitted, self._models.store, served)
            self._fitted = served, fitted
        return self._fitted[1]


def _read_fitted(store: ModelStore, served: ServedModel) -> FittedPictures:
    """Read the pictures of a version's fit; none where unknown."""
    try:
        fitted = FittedPictures.read(store.folder(served.name, served.version) / FEATURES_FILE)
    except (ArtifactError, NotFoundError) as error:
        log.warning("%s", error)
        return FittedPictures.none()
    return fitted if fitted.labels == served.card.labels else FittedPictures.none()


def _merged(probabilities: FloatArray, row_of: npt.NDArray[np.int64], names: int) -> FloatArray:
    """Add up the probabilities [n, K] of merged labels."""
    if names == len(row_of):
        return probabilities
    merged = np.zeros((len(probabilities), names), np.float32)
    for column, row in enumerate(row_of):
        merged[:, row] += probabilities[:, column]
    return merged
