"""A backbone in memory: decoders, lanes, network."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from regraft.errors import InvalidImageError, OverloadedError
from regraft.image.decode import decode_crop
from regraft.image.limits import DEFAULT_LIMITS, ImageLimits
from regraft.image.spec import Crop, ImageSpec
from regraft.machine import cpu_budget
from regraft.model.artifact import Head
from serving.inference.batcher import Batcher
from serving.inference.cpus import CpuPool
from serving.inference.engine import Engine, Output


@dataclass(frozen=True, eq=False)
class InferenceRequest:
    """A picture for the network.

    Attributes:
        image: an encoded picture, or a crop uint8 [crop_px, crop_px, 3].
        spec: how it is cut.
        head: whose labels it gets.
        most_pixels: it is refused if it turns out to have more.
    """

    image: bytes | Crop
    spec: ImageSpec
    head: Head
    most_pixels: int = sys.maxsize


@dataclass(frozen=True, eq=False)
class InferenceResult:
    """The output of a picture, its times, and the size of its batch."""

    output: Output
    decode_s: float
    queue_s: float
    inference_s: float
    batch: int


@dataclass(frozen=True, eq=False)
class _LaneOutput:
    output: Output
    decode_s: float
    inference_s: float
    batch: int


class Backbone:
    """A session with its lanes, shared by the versions with its digest.

    On a CPU a lane decodes what it runs: one hop between threads for both. On a GPU decoders of their own fill the
    batches (`serving.inference.engine.ExecutionPlan`). ``users`` counts the versions. Use from one event loop; close
    when done.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_queue: int,
        limits: ImageLimits = DEFAULT_LIMITS,
        on_batch: Callable[[int], None] = lambda _size: None,
        cpus: CpuPool | None = None,
    ) -> None:
        """Put lanes before an engine.

        Args:
            engine: with its plan.
            max_queue: the most pictures that may wait for a lane, and for a decoder, background work apart.
            limits: of a picture.
            on_batch: called with the size of each batch.
            cpus: of which lanes on a CPU take one for each thread, and decoders one each; its own if not given.
        """
        self.engine = engine
        self.users = 0
        self._limits = limits
        plan, cpus = engine.plan, cpus or CpuPool(cpu_budget())
        self._cpus: Callable[[], AbstractContextManager[object]] = (
            partial(cpus.reserve, plan.threads) if plan.decode_in_lane else nullcontext
        )
        self._lanes = Batcher[InferenceRequest, _LaneOutput](
            self._run,
            lanes=plan.lanes,
            max_batch=plan.max_batch,
            max_queue=max_queue,
            turn=plan.turn,
            on_batch=on_batch,
            cpus=self._cpus,
        )
        self._decoders = (
            None
            if plan.decode_in_lane
            else Batcher[InferenceRequest, tuple[InferenceRequest, float]](
                self._decode_alone, lanes=cpus.count, max_batch=1, max_queue=max_queue, cpus=partial(cpus.reserve, 1)
            )
        )

    @property
    def depth(self) -> int:
        """The number of pictures that wait, for a lane or a decoder."""
        return self._lanes.depth + (self._decoders.depth if self._decoders else 0)

    async def infer(
        self, request: InferenceRequest, deadline_s: float | None = None, *, background: bool = False
    ) -> InferenceResult:
        """Run one picture through the network.

        Cancelling the caller, or its deadline on the event loop's clock, takes the picture out of its queue; its
        neighbours do not notice. Requests go before ``background`` work.

        Raises:
            InvalidImageError: it is no picture.
            OverloadedError: a queue is full, for all but background work; at once.
            DeadlineError: the deadline passed while it waited.
            DrainingError: the backbone is closed.
        """
        decode_s = queue_s = 0.0
        if self._decoders and isinstance(request.image, bytes):
            decoded = await self._decoders.submit(request, deadline_s, background=background)
            (request, decode_s), queue_s = decoded.result, decoded.queue_s
        inferred = await self._lanes.submit(request, deadline_s, background=background)
        run, queue_s = inferred.result, queue_s + inferred.queue_s
        return InferenceResult(run.output, decode_s + run.decode_s, queue_s, run.inference_s, run.batch)

    def refusal(self, seconds_left: float | None) -> OverloadedError | None:
        """Return the error by which `infer` would refuse a request now, or None."""
        return (self._decoders and self._decoders.refusal(seconds_left)) or self._lanes.refusal(seconds_left)

    async def warm_up(self, head: Head, crop_px: int) -> None:
        """Run all batch sizes in the thread of every lane.

        There CUDA makes what it keeps for each thread.

        Raises:
            ArtifactError: an answer makes no sense.
            DrainingError: the backbone is closed.
        """
        await self._lanes.run_in_all_lanes(partial(self._warm_up, head, crop_px))

    async def try_head(self, head: Head, crop_px: int) -> None:
        """Run one blank picture for a head that is new to the session.

        Raises:
            ArtifactError: the answer makes no sense.
            DrainingError: the backbone is closed.
        """
        # Beside the lanes it would be one run more than ever at once, whose memory ONNX Runtime would keep.
        await self._lanes.run_in_lane(partial(self._warm_up, head, crop_px, only_one=True))

    def _warm_up(self, head: Head, crop_px: int, *, only_one: bool = False) -> None:
        with self._cpus():
            self.engine.warm_up(head, crop_px, only_one=only_one)

    def close(self) -> None:
        """Refuse what waits and what comes; runs that have started still answer."""
        self._lanes.close()
        if self._decoders:
            self._decoders.close()

    def _decode_alone(self, requests: Sequence[InferenceRequest]) -> list[tuple[InferenceRequest, float]]:
        (request,) = requests
        crop, seconds = self._cut(request)
        return [(replace(request, image=crop), seconds)]

    def _run(self, requests: Sequence[InferenceRequest]) -> list[_LaneOutput | Exception]:
        """Decode pictures and run the network once; a bad picture fails alone."""
        cuts = [self._cut_or_error(request) for request in requests]
        good = [(cut, request.head) for cut, request in zip(cuts, requests, strict=True) if isinstance(cut, tuple)]
        started_s = time.perf_counter()
        outputs = iter(self.engine.run([crop for (crop, _), _ in good], [head for _, head in good]) if good else ())
        inference_s = time.perf_counter() - started_s
        return [
            _LaneOutput(next(outputs), cut[1], inference_s, len(good)) if isinstance(cut, tuple) else cut
            for cut in cuts
        ]

    def _cut_or_error(self, request: InferenceRequest) -> tuple[Crop, float] | Exception:
        try:
            return self._cut(request)
        except InvalidImageError as error:
            return error

    def _cut(self, request: InferenceRequest) -> tuple[Crop, float]:
        if not isinstance(request.image, bytes):
            return request.image, 0.0
        started_s = time.perf_counter()
        crop = decode_crop(request.image, request.spec, self._limits.at_most(request.most_pixels))
        return crop, time.perf_counter() - started_s
