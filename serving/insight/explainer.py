"""Explanations of answers, by hiding parts of the picture.

Each takes 26 runs of the network. They go through the lanes behind every request, one explanation at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from regraft.errors import InvalidRequestError, OverloadedError
from regraft.image.decode import decode_crop
from regraft.image.decoding_cost import DecodingCost
from regraft.image.encode import encode_png
from regraft.image.occlusion import Heat, heat_of, hidden_in_turn, tinted
from regraft.image.spec import Crop
from regraft.label_rules import nfc
from regraft.model.artifact import FloatArray
from serving.inference.backbone import InferenceRequest
from serving.inference.models_in_memory import ServedModel
from serving.inference.picture_memory import PictureMemory
from serving.inference.registry import ModelRegistry
from serving.inference.shares import Shares
from serving.telemetry.call import caller

_MOST_WAITING: Final = 8
_RETRY_AFTER_S: Final = 2.0


@dataclass(frozen=True)
class Explanation:
    """An answer, with the places where the network looked.

    Attributes:
        label: that is explained, and its probability.
        heat: how much of the log odds hiding a cell takes away, float32 [CELLS, CELLS].
        overlay: PNG of the crop, grey, red where it looked.
    """

    version: int
    label: str
    probability: float
    heat: Heat
    overlay: bytes


class Explainer:
    """An explainer of answers; use it from one event loop."""

    def __init__(self, models: ModelRegistry, memory: Shares | None = None) -> None:
        """Explain what ``models`` answer.

        Args:
            models: that are served.
            memory: the bytes that pictures may take; see `serving.inference.classifier.Classifier`.
        """
        self._models = models
        self._threads = models.threads
        self._memory = PictureMemory(memory, models.limits, models.threads.pictures)
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def explain(self, served: ServedModel, image: bytes, labels: Sequence[str], label: str = "") -> Explanation:
        """Explain an answer to an encoded picture, or another label.

        Args:
            served: that answers.
            image: the picture.
            labels: of its head, as they are called now.
            label: one of them; the answer if empty.

        Raises:
            InvalidImageError: the bytes are no picture.
            InvalidRequestError: the model has no such label.
            OverloadedError: too many wait, or there is no memory for the picture now.
        """
        if label and nfc(label) not in labels:
            raise InvalidRequestError(f"label: {served.name} has no {label!r}")
        async with self._room(served, image) as cost, self._one_at_a_time():
            crop = await self._crop(served, image, cost)
            crops = [crop, *hidden_in_turn(crop)]
            requests = (InferenceRequest(each, served.card.image, served.head) for each in crops)
            runs = await asyncio.gather(*(served.backbone.infer(request, background=True) for request in requests))
            probabilities = runs[0].output.probabilities
            answer = labels.index(nfc(label)) if label else int(probabilities.argmax())
            embedding = np.stack([run.output.embedding for run in runs])
            heat = heat_of(embedding @ served.head.weight.T + served.head.bias, answer)
            overlay = await self._threads.pictures.run(_drawn, crop, heat)
        return Explanation(served.version, labels[answer], float(probabilities[answer]), heat, overlay)

    async def embedding(self, served: ServedModel, image: bytes) -> FloatArray:
        """Return the embedding float32 [D] of an encoded picture, behind every request.

        Raises:
            InvalidImageError: the bytes are no picture.
            OverloadedError: there is no memory for the picture now.
        """
        async with self._room(served, image) as cost:
            request = InferenceRequest(image, served.card.image, served.head, cost.pixels)
            return (await served.backbone.infer(request, background=True)).output.embedding

    @asynccontextmanager
    async def _room(self, served: ServedModel, image: bytes) -> AsyncIterator[DecodingCost]:
        """Hold the memory of a picture, encoded and decoded.

        It is held while the picture waits, too.
        """
        cost = await self._memory.cost(image, served.card.image)
        with await self._memory.take([cost], caller(), patient=False):
            yield cost

    async def _crop(self, served: ServedModel, image: bytes, cost: DecodingCost) -> Crop:
        limits = self._models.limits.at_most(cost.pixels)
        return await self._threads.pictures.run(decode_crop, image, served.card.image, limits)

    @asynccontextmanager
    async def _one_at_a_time(self) -> AsyncIterator[None]:
        if self._waiting >= _MOST_WAITING:
            raise OverloadedError("too many explanations wait for their turn: try again later", _RETRY_AFTER_S)
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turn.release()


def _drawn(crop: Crop, heat: Heat) -> bytes:
    return encode_png(tinted(crop, heat))
