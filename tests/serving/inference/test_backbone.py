import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from regraft.errors import ArtifactError, DeadlineError, InvalidImageError, OverloadedError
from regraft.image.decode import decode_crop
from regraft.image.limits import ImageLimits
from regraft.model.artifact import graft
from regraft.model.session import OpenSession
from serving.inference.backbone import Backbone, InferenceRequest, InferenceResult
from serving.inference.engine import Engine
from serving.inference.execution_plan import ExecutionPlan
from tests.serving.fakes import GatedSession, SlowPicture
from tests.tiny import SPEC, picture, tiny_backbone, tiny_card, tiny_head
from tests.waiting import asynchronous, until

LABELS = ("red", "green", "blue")
HEAD = tiny_head(LABELS)
IN_LANE = pytest.mark.parametrize("in_lane", [True, False], ids=["lanes decode", "decoders decode"])


@dataclass
class Stage:
    backbone: Backbone
    session: GatedSession

    def infer(self, image: bytes, deadline_s: float | None = None) -> "asyncio.Task[InferenceResult]":
        return asyncio.create_task(self.backbone.infer(InferenceRequest(image, SPEC, HEAD), deadline_s))

    async def begin(self, image: bytes) -> "asyncio.Task[InferenceResult]":
        """Ask, and wait until the session runs it."""
        runs = len(self.session.batches)
        task = self.infer(image)
        await until(lambda: len(self.session.batches) > runs)
        return task


@asynccontextmanager
async def stage(in_lane: bool, max_batch: int = 4, max_queue: int = 8) -> AsyncIterator[Stage]:
    graph = tiny_backbone()
    session = GatedSession(graft(graph, HEAD, tiny_card(graph, HEAD, LABELS)).SerializeToString())
    engine = Engine(OpenSession(session, "cpu"), ExecutionPlan(1, 1, max_batch, in_lane))
    backbone = Backbone(engine, max_queue=max_queue, limits=ImageLimits(max_bytes=100_000))
    try:
        yield Stage(backbone, session)
    finally:
        session.gate.set()
        backbone.close()


def label(reply: InferenceResult) -> str:
    return LABELS[int(reply.output.probabilities.argmax())]


@IN_LANE
@asynchronous
async def test_a_picture_and_its_crop_get_the_same_answer(in_lane: bool) -> None:
    async with stage(in_lane) as s:
        encoded = await s.infer(picture("green"))
        cut = await s.backbone.infer(InferenceRequest(decode_crop(picture("green"), SPEC), SPEC, HEAD))

        assert label(encoded) == label(cut) == "green"
        assert encoded.output.probabilities == pytest.approx(cut.output.probabilities)
        assert encoded.decode_s > 0 == cut.decode_s


@IN_LANE
@asynchronous
async def test_a_picture_that_cannot_be_decoded_fails_alone(in_lane: bool) -> None:
    """Invariant 4."""
    async with stage(in_lane) as s:
        with s.session.held():
            first = await s.begin(picture("red"))
            mates = [s.infer(image) for image in (picture("blue"), b"no picture", picture("green"), b"\0" * 100_001)]
            await until(lambda: s.backbone.depth == (4 if in_lane else 2))
        replies = await asyncio.gather(first, *mates, return_exceptions=True)

        assert [label(reply) for reply in replies if isinstance(reply, InferenceResult)] == ["red", "blue", "green"]
        assert [type(reply) for reply in replies if not isinstance(reply, InferenceResult)] == [InvalidImageError] * 2
        assert [len(batch) for batch in s.session.batches] == [1, 2], "what is no picture is not run"


@asynchronous
async def test_a_batch_of_nothing_but_bad_pictures_runs_nothing() -> None:
    async with stage(in_lane=True) as s:
        with pytest.raises(InvalidImageError):
            await s.infer(b"no picture")

        assert s.session.batches == []


@IN_LANE
@asynchronous
async def test_what_expired_or_was_cancelled_while_it_waited_is_never_looked_at(in_lane: bool) -> None:
    """Invariant 4: it costs neither a decode nor a run."""
    async with stage(in_lane) as s:
        expired, cancelled = SlowPicture(picture("red")), SlowPicture(picture("blue"))
        with s.session.held():
            first = await s.begin(picture("red"))
            now_s = asyncio.get_running_loop().time()
            late = s.infer(expired, now_s if not in_lane else now_s + 0.01)
            gone = s.infer(cancelled)
            await until(lambda: late.done() or asyncio.get_running_loop().time() > now_s + 0.02)
            gone.cancel()
            await until(gone.done)
        with pytest.raises(DeadlineError):
            await late
        await first

        assert not expired.looked_at.is_set()
        assert [len(batch) for batch in s.session.batches] == [1]
        if in_lane:
            assert not cancelled.looked_at.is_set()
        cancelled.gate.set()


@IN_LANE
@asynchronous
async def test_a_full_queue_refuses_at_once(in_lane: bool) -> None:
    """Invariant 5."""
    async with stage(in_lane, max_queue=1) as s:
        with s.session.held():
            first = await s.begin(picture("red"))
            second = s.infer(picture("blue"))
            await until(lambda: s.backbone.depth == 1)
            with pytest.raises(OverloadedError):
                await s.infer(picture("green"))
        assert [label(await task) for task in (first, second)] == ["red", "blue"]


@asynchronous
async def test_a_lane_that_decodes_says_how_long_that_took_and_how_long_the_run() -> None:
    async with stage(in_lane=True) as s:
        reply = await s.infer(picture("red"))

        assert reply.decode_s > 0
        assert reply.inference_s > 0
        assert reply.queue_s >= 0
        assert reply.batch == 1


@asynchronous
async def test_every_lane_is_warmed_up_in_its_own_thread() -> None:
    graph = tiny_backbone()
    session = GatedSession(graft(graph, HEAD, tiny_card(graph, HEAD, LABELS)).SerializeToString())
    engine = Engine(OpenSession(session, "cpu"), ExecutionPlan(lanes=3, threads=1, max_batch=2, decode_in_lane=True))
    backbone = Backbone(engine, max_queue=8)

    await backbone.warm_up(HEAD, SPEC.crop_px)

    assert sorted(len(batch) for batch in session.batches) == sorted([1, 1, 2] * 3)
    assert len(set(session.threads)) == 3
    backbone.close()


@asynchronous
async def test_a_warm_up_that_fails_in_a_lane_fails() -> None:
    async with stage(in_lane=True) as s:
        s.session.failures.append(RuntimeError("out of memory"))
        with pytest.raises(ArtifactError, match="out of memory"):
            await s.backbone.warm_up(HEAD, SPEC.crop_px)
