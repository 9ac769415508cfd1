"""Classification of a picture: permit, memory, model, network, answer."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from regraft.errors import (
    CallerError,
    DeadlineError,
    InvalidImageError,
    InvalidRequestError,
    NotNowError,
    OverloadedError,
)
from regraft.image.decoding_cost import DecodingCost
from regraft.image.spec import Crop
from regraft.model.card import ModelCard
from serving.inference.backbone import InferenceRequest, InferenceResult
from serving.inference.engine import Output
from serving.inference.models_in_memory import ServedModel
from serving.inference.picture_memory import PictureMemory
from serving.inference.registry import ModelRegistry
from serving.inference.shares import Grant, Shares
from serving.telemetry.call import caller, current
from serving.telemetry.metrics import Metrics

DEFAULT_TOP_K = 5
_PATIENT_PART: Final = 4
"""Streams have one in so many permits, so that fewer pictures wait before a single request."""


class Version(Protocol):
    """A version with its card."""

    @property
    def name(self) -> str: ...  # noqa: D102 - said by the name

    @property
    def version(self) -> int: ...  # noqa: D102 - likewise

    @property
    def card(self) -> ModelCard: ...  # noqa: D102 - likewise


@dataclass(frozen=True)
class Answer:
    """The answer to a picture.

    Attributes:
        served: the version that answered.
        predictions: (label, probability), most probable first.
        novelty: 0 (like a class mean) to 2.
        seconds: by stage: decode, queue, inference, total.
        request_id: of the prediction, whether or not its picture is kept.
    """

    served: Version
    predictions: tuple[tuple[str, float], ...]
    novelty: float
    seconds: dict[str, float]
    request_id: str


@dataclass(frozen=True)
class Inference:
    """The outputs of several pictures, all by one version."""

    served: ServedModel
    outputs: tuple[Output, ...]


class Classifier:
    """A classifier of pictures, within limits; use from one event loop."""

    def __init__(
        self,
        models: ModelRegistry,
        *,
        max_in_flight: int,
        metrics: Metrics,
        memory: Shares | None = None,
        on_answer: Callable[[ServedModel, Output], None] = lambda _served, _output: None,
        keep: Callable[[str, ServedModel, bytes, Output], None] | None = None,
    ) -> None:
        """Make a classifier.

        Args:
            models: that are served.
            max_in_flight: the most pictures at once.
            metrics: counts them.
            memory: the bytes that pictures may take, encoded and decoded; half a gigabyte of its own if not given.
            on_answer: called with each answer.
            keep: called with the id, model, bytes and output of each picture that came encoded; must not wait.
        """
        self._models = models
        self._permits = Shares(max_in_flight, _PATIENT_PART)
        self._memory = PictureMemory(memory, models.limits, models.threads.pictures)
        self._metrics = metrics
        self._on_answer = on_answer
        self._keep = keep
        metrics.watch_in_flight(lambda: self._permits.taken, max_in_flight)
        self._last_s = 0.1  # what the last answer took: in a full server, about what it takes to get through all

    async def classify(
        self,
        image: bytes,
        *,
        name: str = "",
        top_k: int = 0,
        deadline_s: float | None = None,
        on_admitted: Callable[[], object] | None = None,
    ) -> Answer:
        """Classify one encoded picture.

        Args:
            image: the picture's bytes.
            name: the model; may be empty while there is one.
            top_k: the number of labels; 0 means 5.
            deadline_s: on the event loop's clock; work that would come too late is not begun.
            on_admitted: wait for room instead of being refused, as a stream may, whose client is held back until this
                is called.

        Raises:
            OverloadedError: every permit is taken, or there is no memory for the picture now.
            InvalidImageError: the bytes are no picture.
            DeadlineError: the deadline passed.
            NotFoundError: no such model.
            PreconditionError: the model has no version that could be loaded.
        """
        with await self._permit(1, patient=on_admitted is not None), self._hold(name, None) as served:
            request_id = uuid.uuid4().hex
            costs = [await self._cost(served, image, deadline_s)]
            with await self._memory.take(costs, caller(), patient=on_admitted is not None):
                if on_admitted:
                    on_admitted()
                output, seconds = await self._infer(served, image, costs[0], deadline_s, request_id)
        return Answer(served, ranked(output, served.card.labels, top_k), output.novelty, seconds, request_id)

    async def infer(
        self,
        images: Sequence[bytes | Crop],
        *,
        name: str = "",
        version: int | None = None,
        deadline_s: float | None = None,
        on_admitted: Callable[[], object] | None = None,
    ) -> Inference:
        """Run several pictures, all of them or none.

        Args:
            images: encoded pictures, or crops uint8 [H, W, 3] of the model's own size.
            name: as in `classify`, and so the next arguments.
            version: that must answer; None for whichever does.
            deadline_s: see there.
            on_admitted: see there.

        Raises:
            InvalidRequestError: a crop has another size than the model's, or there are more than ever fit at once.
            RegraftError: what `classify` raises, of the first picture that fails.
        """
        patient = on_admitted is not None
        with await self._permit(len(images), patient=patient), self._hold(name, version) as served:
            costs = [
                await self._cost(served, image, deadline_s, _prefix(number)) for number, image in enumerate(images)
            ]
            with await self._memory.take(costs, caller(), patient=patient):
                if on_admitted:
                    on_admitted()
                return await self._infer_all(served, images, costs, deadline_s)

    async def _infer_all(
        self,
        served: ServedModel,
        images: Sequence[bytes | Crop],
        costs: Sequence[DecodingCost],
        deadline_s: float | None,
    ) -> Inference:
        try:
            async with asyncio.TaskGroup() as tasks:
                inferences = [
                    tasks.create_task(self._infer(served, image, cost, deadline_s, uuid.uuid4().hex, _prefix(number)))
                    for number, (image, cost) in enumerate(zip(images, costs, strict=True))
                ]
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # the others were cancelled, or are as bad
        return Inference(served, tuple(task.result()[0] for task in inferences))

    def check_capacity(self, seconds_left: float | None) -> None:
        """Refuse a request that would be refused whatever it says.

        Raises:
            OverloadedError: every permit is taken, or so many wait that the deadline would pass.
        """
        is_full = self._permits.is_refused(caller()) or self._memory.is_used_up(caller())
        if error := self._full() if is_full else self._models.refusal(seconds_left):
            raise self._count(error)

    async def _permit(self, pictures: int, *, patient: bool) -> Grant:
        """Take the permits of a request."""
        if pictures > self._permits.most:
            raise InvalidRequestError(
                f"image: {pictures} pictures; this server takes no more than {self._permits.most} at once "
                "(REGRAFT_MAX_IN_FLIGHT): send fewer"
            )
        grant = await self._permits.take(pictures, caller(), patient=patient)
        if grant is None:
            raise self._count(self._full())
        return grant

    def _full(self) -> OverloadedError:
        return OverloadedError("the server is full: try again later, or another replica", self._last_s / 2)

    async def _cost(
        self, served: ServedModel, image: bytes | Crop, deadline_s: float | None, prefix: str = ""
    ) -> DecodingCost:
        """Return the cost of a picture, before it is decoded."""
        if deadline_s is not None and deadline_s <= asyncio.get_running_loop().time():
            raise DeadlineError("the deadline passed before the picture was looked at")
        _check_crop(served, image, prefix)
        try:
            return await self._memory.cost(image, served.card.image)
        except InvalidImageError as error:
            raise InvalidImageError(f"{prefix}{error}") from error

    def _count(self, error: OverloadedError) -> OverloadedError:
        """Count a refusal."""
        self._metrics.shed.inc()
        return error

    @contextmanager
    def _hold(self, name: str, version: int | None) -> Iterator[ServedModel]:
        """Hold a version for the block, and count the outcome."""
        try:
            with self._models.acquire(name) as served:
                served.check_version(version)
                statistics, started_s = self._metrics.of(served.name), time.perf_counter()
                outcome = statistics.fail
                try:
                    yield served
                    outcome = statistics.success
                except (CallerError, NotNowError, MemoryError):  # memory is the machine's, not the version's
                    raise
                except Exception:
                    served.failures += 1
                    raise
                finally:
                    outcome.add(time.perf_counter() - started_s)
        except OverloadedError as error:
            self._count(error)
            raise
        except DeadlineError:
            self._metrics.expired.inc()
            raise

    async def _infer(
        self,
        served: ServedModel,
        image: bytes | Crop,
        cost: DecodingCost,
        deadline_s: float | None,
        request_id: str,
        prefix: str = "",
    ) -> tuple[Output, dict[str, float]]:
        started_s = time.perf_counter()
        request = InferenceRequest(image, served.card.image, served.head, cost.pixels)
        try:
            result = await served.backbone.infer(request, deadline_s)
        except InvalidImageError as error:
            raise InvalidImageError(f"{prefix}{error}") from error
        seconds = {
            "decode": result.decode_s,
            "queue": result.queue_s,
            "inference": result.inference_s,
            "total": time.perf_counter() - started_s,
        }
        self._count_answer(served, result, seconds)
        self._last_s = seconds["total"]
        if self._keep and isinstance(image, bytes):
            self._keep(request_id, served, image, result.output)
        return result.output, seconds

    def _count_answer(self, served: ServedModel, result: InferenceResult, seconds: dict[str, float]) -> None:
        """Count an answer in metrics, trace and observer."""
        call = current()
        top = int(result.output.probabilities.argmax())
        self._metrics.of(served.name).answered(
            seconds,
            served.card.labels[top],
            float(result.output.probabilities[top]),
            is_novel=result.output.novelty > served.card.novelty_threshold,
            batch=result.batch,
            trace_id=call.trace_id if call else "",
        )
        if call and call.on_answer:
            call.on_answer(seconds)
        self._on_answer(served, result.output)


def ranked(output: Output, labels: Sequence[str], top_k: int) -> tuple[tuple[str, float], ...]:
    """Return the ``top_k`` (0: 5) most probable labels with probabilities."""
    return tuple((labels[index], float(output.probabilities[index])) for index in output.best(top_k or DEFAULT_TOP_K))


def _prefix(number: int) -> str:
    return f"image {number}: "


def _check_crop(served: ServedModel, image: bytes | Crop, prefix: str) -> None:
    side = served.card.image.crop_px
    if not isinstance(image, bytes) and image.shape != (side, side, 3):
        raise InvalidRequestError(
            f"{prefix}a crop of {image.shape[0]} x {image.shape[1]} px; {served.name} takes {side}"
        )
