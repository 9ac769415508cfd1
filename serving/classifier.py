"""A picture in, an answer out: permit, handle, decode, lane, answer. Knows nothing of gRPC."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from regraft.errors import DeadlineError, OverloadedError
from regraft.image import Crop, ImageSpec, Limits, decode_crop
from regraft.runtime import cpu_budget
from serving.metrics import Metrics
from serving.models import Models, ServedModel

DEFAULT_TOP_K = 5


@dataclass(frozen=True)
class Answer:
    """What a picture is.

    Attributes:
        served: the version that answered.
        predictions: (label, probability), most probable first.
        novelty: 0 (like a class mean) to 2.
        seconds: by stage: decode, queue, inference, total.
    """

    served: ServedModel
    predictions: tuple[tuple[str, float], ...]
    novelty: float
    seconds: dict[str, float]


class Classifier:
    """Admits, decodes and classifies. Use from one event loop; close it when done."""

    def __init__(self, models: Models, *, max_in_flight: int, max_image_bytes: int, metrics: Metrics) -> None:
        """Classify with what ``models`` serves, at most ``max_in_flight`` pictures at once."""
        self._models = models
        self._permits = asyncio.Semaphore(max_in_flight)
        self._limits = Limits(max_bytes=max_image_bytes)
        self._metrics = metrics
        self._decoders = ThreadPoolExecutor(cpu_budget(), thread_name_prefix="decode")

    async def classify(
        self, image: bytes, *, name: str = "", top_k: int = 0, deadline_s: float | None = None, wait: bool = False
    ) -> Answer:
        """Classify one encoded picture.

        Args:
            image: the picture's bytes.
            name: the model; may be empty while there is one.
            top_k: how many labels; 0 means 5.
            deadline_s: on the event loop's clock; work that would come too late is not begun.
            wait: wait for a permit instead of being refused, as a stream may, whose client is held back meanwhile.

        Raises:
            OverloadedError: every permit is taken.
            InvalidImageError: the bytes are no picture.
            DeadlineError: the deadline passed.
            NotFoundError: no such model.
            PreconditionError: the model has no version that could be loaded.
        """
        if self._permits.locked() and not wait:
            raise OverloadedError("the server is full: try again later, or another replica")
        async with self._permits:
            self._metrics.in_flight.inc()
            try:
                with self._models.acquire(name) as served:
                    return await self._answer(served, image, top_k, deadline_s)
            finally:
                self._metrics.in_flight.dec()

    async def decode(self, image: bytes, spec: ImageSpec) -> Crop:
        """Decode a picture in a thread, within this server's limits; see `regraft.image.decode_crop`."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, decode_crop, image, spec, self._limits)

    def close(self) -> None:
        """Let the decoding threads go."""
        self._decoders.shutdown(wait=False)

    async def _answer(self, served: ServedModel, image: bytes, top_k: int, deadline_s: float | None) -> Answer:
        if deadline_s is not None and deadline_s <= asyncio.get_running_loop().time():
            raise DeadlineError("the deadline passed before the picture was looked at")
        started_s = time.perf_counter()
        crop = await self.decode(image, served.card.image)
        decoded_s = time.perf_counter()
        answered = await served.backbone.batcher.submit((crop, served.head), deadline_s)
        seconds = {
            "decode": decoded_s - started_s,
            "queue": answered.queue_s,
            "inference": answered.run_s,
            "total": time.perf_counter() - started_s,
        }
        for stage, value in seconds.items():
            self._metrics.stage_seconds.labels(stage).observe(value)
        output = answered.result
        best = np.argsort(-output.probabilities, kind="stable")[: top_k or DEFAULT_TOP_K]
        predictions = tuple((served.card.labels[index], float(output.probabilities[index])) for index in best)
        return Answer(served, predictions, output.novelty, seconds)
