import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft.errors import (
    DeadlineError,
    InvalidImageError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
)
from regraft.image.decode import decode_crop
from regraft.image.decoding_cost import quick_cost
from regraft.image.limits import ImageLimits
from regraft.model.artifact import Head
from regraft.stores.models import ModelStore
from serving.inference.classifier import DEFAULT_TOP_K, Answer, Classifier
from serving.inference.execution_plan import ExecutionPlan
from serving.inference.registry import ModelRegistry
from serving.inference.shares import Shares
from serving.telemetry.metrics import Metrics
from serving.threads import Threads
from tests.serving.fakes import Engines, GatedSession, SlowPicture
from tests.serving.metric_samples import value_of
from tests.tiny import COLOURS, SPEC, picture, publish_tiny, tiny_backbone, tiny_features, tiny_head
from tests.waiting import PATIENCE_S, asynchronous, until

LABELS = ("red", "green", "blue")
HEAD = tiny_head(LABELS)


@dataclass
class Stage:
    """A classifier on gated engines."""

    store: ModelStore
    engines: Engines
    models: ModelRegistry
    classifier: Classifier
    metrics: Metrics

    @property
    def session(self) -> GatedSession:
        return self.engines.sessions[0]

    def metric(self, name: str, **labels: str) -> float | None:
        return value_of(self.metrics.registry, name, labels)

    async def promote(self, version: int) -> None:
        await self.models.move("colours", version, who="test", why="")

    async def begin(self, image: bytes, name: str = "", deadline_s: float | None = None) -> "asyncio.Task[Answer]":
        """Ask, and wait until the request waits for a lane or runs."""
        before = self.waiting_or_run()
        task = asyncio.create_task(self.classifier.classify(image, name=name, deadline_s=deadline_s))
        await until(lambda: self.waiting_or_run() > before)
        return task

    def waiting_or_run(self) -> float:
        run = sum(len(batch) for session in self.engines.sessions for batch in session.batches)
        return run + (self.metric("regraft_queue_depth") or 0)


@asynccontextmanager
async def stage(
    store: ModelStore,
    *,
    max_in_flight: int = 32,
    max_image_bytes: int = 100_000,
    lanes: int = 1,
    max_batch: int = 4,
    memory_bytes: int = 2**29,
) -> AsyncIterator[Stage]:
    engines, metrics, threads = Engines(ExecutionPlan(lanes, 1, max_batch)), Metrics(), Threads()
    limits = ImageLimits(max_bytes=max_image_bytes)
    models = ModelRegistry(store, engines, max_queue=max_in_flight, metrics=metrics, threads=threads, limits=limits)
    await models.refresh()
    classifier = Classifier(models, max_in_flight=max_in_flight, metrics=metrics, memory=Shares(memory_bytes))
    try:
        yield Stage(store, engines, models, classifier, metrics)
    finally:
        engines.open_all_gates()
        models.close()
        threads.close()


def expected(image: bytes, head: Head, labels: tuple[str, ...], scale: float = 1.0) -> dict[str, float]:
    """Return what a head makes of a picture, computed without a server."""
    quarters = decode_crop(image, SPEC).reshape(2, 4, 2, 4, 3).mean(axis=(1, 3)).transpose(2, 0, 1).ravel()
    embedding = np.asarray(scale * quarters / 255, np.float32)[None]
    return dict(zip(labels, head.probabilities(embedding)[0].tolist(), strict=True))


def is_answer(answer: Answer, image: bytes, head: Head, labels: tuple[str, ...], scale: float = 1.0) -> bool:
    return dict(answer.predictions) == pytest.approx(expected(image, head, labels, scale), abs=1e-4)


@asynchronous
async def test_an_answer_names_the_version_the_labels_and_where_the_time_went(store: ModelStore) -> None:
    async with stage(store) as s:
        answer = await s.classifier.classify(picture("green"))

        assert (answer.served.name, answer.served.version) == ("colours", 1)
        assert answer.predictions[0][0] == "green"
        assert is_answer(answer, picture("green"), HEAD, LABELS)
        assert [value for _, value in answer.predictions] == sorted((v for _, v in answer.predictions), reverse=True)
        assert 0 <= answer.novelty < 0.05
        assert answer.seconds.keys() == {"decode", "queue", "inference", "total"}
        parts = [answer.seconds[stage] for stage in ("decode", "queue", "inference")]
        assert all(part >= 0 for part in parts)
        assert answer.seconds["total"] >= sum(parts) - 1e-3


@asynchronous
async def test_as_many_labels_are_answered_as_are_asked_for_5_where_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tuple(f"label {number}" for number in range(7))
    answers = {0: DEFAULT_TOP_K, 1: 1, 5: 5, 7: 7, 100: 7}
    for number, label in enumerate(many):
        monkeypatch.setitem(COLOURS, label, (30 * number, 255 - 30 * number, 128))
    store = ModelStore(tmp_path / "many")
    publish_tiny(store, many)
    async with stage(store) as s:
        for top_k, count in answers.items():
            answer = await s.classifier.classify(picture("label 3"), top_k=top_k)

            assert len(answer.predictions) == count
            assert answer.predictions[0][0] == "label 3"


@asynchronous
async def test_a_picture_unlike_all_training_pictures_is_more_novel(store: ModelStore) -> None:
    async with stage(store) as s:
        known = await s.classifier.classify(picture("red"))
        unknown = await s.classifier.classify(picture("grey"))

        assert known.novelty < known.served.card.novelty_threshold < unknown.novelty


@asynchronous
async def test_a_picture_that_is_slow_to_decode_is_answered_by_the_version_that_took_it(store: ModelStore) -> None:
    """Invariant 1: a swap during the decoding changes nothing for the request, and everything for the next."""
    publish_tiny(store, ("blue", "red", "grey"), sharpness=5.0, promote=False)
    async with stage(store) as s:
        slow = SlowPicture(picture("red"))
        before = asyncio.create_task(s.classifier.classify(slow))
        await until(slow.looked_at.is_set)
        await s.promote(2)
        after = await s.classifier.classify(picture("red"))
        slow.gate.set()

        assert (await before).served.version == 1
        assert is_answer(await before, picture("red"), HEAD, LABELS)
        assert after.served.version == 2
        assert is_answer(after, picture("red"), tiny_head(("blue", "red", "grey"), 5.0), ("blue", "red", "grey"))


@asynchronous
async def test_what_runs_or_waits_while_a_head_is_swapped_is_answered_by_the_version_that_took_it(
    store: ModelStore,
) -> None:
    """Invariant 1."""
    publish_tiny(store, sharpness=5.0, promote=False)
    async with stage(store, lanes=2) as s:
        warmed_up = len(s.session.batches)
        with s.session.held():
            running = await s.begin(picture("red", 1))
            swap = asyncio.create_task(s.promote(2))
            await until(lambda: len(s.session.batches) == warmed_up + 2)  # the trial of the new head has the other lane
            waiting = await s.begin(picture("red", 2))
        await swap

        await assert_answered_by_the_first(running, waiting)
        assert (await s.classifier.classify(picture("red"))).served.version == 2


@asynchronous
async def test_what_runs_or_waits_while_a_backbone_is_swapped_is_answered_by_the_version_that_took_it(
    store: ModelStore,
) -> None:
    """Invariant 1."""
    publish_tiny(store, sharpness=5.0, scale=2.0, promote=False)
    async with stage(store) as s:
        with s.session.held():
            running = await s.begin(picture("red", 1))
            waiting = await s.begin(picture("red", 2))
            await s.promote(2)
            assert (await s.classifier.classify(picture("red", 3))).served.version == 2

        await assert_answered_by_the_first(running, waiting)
        assert (await s.classifier.classify(picture("red"))).served.version == 2


async def assert_answered_by_the_first(*requests: "asyncio.Task[Answer]") -> None:
    for number, request in enumerate(requests, 1):
        assert (await request).served.version == 1
        assert is_answer(await request, picture("red", number), HEAD, LABELS)


@asynchronous
async def test_a_batch_never_mixes_backbones(store: ModelStore) -> None:
    """Invariant 1."""
    publish_tiny(store, ("grey", "red"), name="animals", scale=2.0)
    async with stage(store) as s:
        animals, colours = s.engines.sessions  # loaded in the order of the names
        runs = len(animals.batches)
        with animals.held(), colours.held():
            requests = [
                await s.begin(picture("red", number), ("animals", "colours")[number % 2]) for number in range(8)
            ]
        for number, request in enumerate(requests):
            answer, image = await request, picture("red", number)
            if number % 2:
                assert is_answer(answer, image, HEAD, LABELS)
            else:
                assert is_answer(answer, image, tiny_head(("grey", "red")), ("grey", "red"), scale=2.0)
        for session, first in ((animals, 0), (colours, 1)):
            fed = [crop.tobytes() for batch in session.batches[runs:] for crop in batch]
            assert fed == [decode_crop(picture("red", number), SPEC).tobytes() for number in range(first, 8, 2)]
            assert max(len(batch) for batch in session.batches[runs:]) == 3


@asynchronous
async def test_a_batch_in_the_middle_of_a_swap_holds_old_and_new_and_each_gets_its_own_head(store: ModelStore) -> None:
    """Invariant 1."""
    publish_tiny(store, sharpness=5.0, promote=False)
    async with stage(store) as s:
        slow = SlowPicture(picture("red", 0))
        old = asyncio.create_task(s.classifier.classify(slow))
        await until(slow.looked_at.is_set)
        await s.promote(2)
        runs = len(s.session.batches)
        with s.session.held():
            first = await s.begin(picture("red", 5))
            slow.gate.set()
            await until(lambda: s.metric("regraft_queue_depth") == 1)
            new = await s.begin(picture("red", 1))

        assert (await old).served.version == 1
        assert is_answer(await old, picture("red", 0), HEAD, LABELS)
        assert (await new).served.version == (await first).served.version == 2
        assert is_answer(await new, picture("red", 1), tiny_head(LABELS, 5.0), LABELS)
        assert [len(batch) for batch in s.session.batches[runs:]] == [1, 2]


@asynchronous
async def test_a_full_server_refuses_at_once_and_before_any_decoding(store: ModelStore) -> None:
    """Invariant 5."""
    async with stage(store, max_in_flight=2) as s:
        with s.session.held():
            taken = [await s.begin(picture("red")), await s.begin(picture("blue"))]
            refused = SlowPicture(b"not even looked at")
            with pytest.raises(OverloadedError, match="full"):
                await s.classifier.classify(refused)
            assert not refused.looked_at.is_set()
            assert s.metric("regraft_in_flight") == s.metric("regraft_in_flight_limit") == 2
            assert s.metric("regraft_shed_total") == 1

        assert [(await request).predictions[0][0] for request in taken] == ["red", "blue"]
        assert (await s.classifier.classify(picture("red"))).predictions[0][0] == "red"


async def learn(s: Stage, name: str) -> None:
    """Let a model learn that a run takes 50 ms."""
    loop = asyncio.get_running_loop()
    s.engines.close_all_gates()
    learnt, started_s = await s.begin(picture("red"), name), loop.time()
    await until(lambda: loop.time() > started_s + 0.05)
    s.engines.open_all_gates()
    await learnt


async def crowd(s: Stage, name: str) -> list["asyncio.Task[Answer]"]:
    """Begin a run, and let another picture wait for it, until all gates are opened."""
    s.engines.close_all_gates()
    return [await s.begin(picture("red"), name), await s.begin(picture("blue"), name)]


@asynchronous
async def test_a_picture_that_would_come_too_late_is_refused_before_it_has_come(store: ModelStore) -> None:
    async with stage(store, max_batch=1) as s:
        s.classifier.check_capacity(0.001)
        await learn(s, "colours")
        taken = await crowd(s, "colours")

        with pytest.raises(OverloadedError, match="deadline"):
            s.classifier.check_capacity(0.04)
        assert s.metric("regraft_shed_total") == 1
        s.classifier.check_capacity(60.0)
        s.classifier.check_capacity(None)
        s.engines.open_all_gates()
        assert [(await request).predictions[0][0] for request in taken] == ["red", "blue"]


@asynchronous
async def test_a_picture_may_come_while_any_model_has_room_for_it(store: ModelStore) -> None:
    """Which model it is for stands beside it."""
    publish_tiny(store, LABELS, name="others", scale=2.0)
    async with stage(store, max_batch=1) as s:
        await learn(s, "colours")
        await learn(s, "others")
        taken = await crowd(s, "colours")

        s.classifier.check_capacity(0.04)
        taken += await crowd(s, "others")
        with pytest.raises(OverloadedError, match="deadline"):
            s.classifier.check_capacity(0.04)
        s.engines.open_all_gates()
        await asyncio.gather(*taken)


@asynchronous
async def test_who_may_wait_gets_a_permit_when_one_is_free(store: ModelStore) -> None:
    async with stage(store, max_in_flight=1) as s:
        with s.session.held():
            taken = await s.begin(picture("red"))
            patient = asyncio.create_task(s.classifier.classify(picture("blue"), on_admitted=lambda: None))
            await asyncio.sleep(0)
            assert not patient.done()
            assert s.metric("regraft_in_flight") == 1

        assert (await taken).predictions[0][0] == "red"
        assert (await patient).predictions[0][0] == "blue"


@asynchronous
async def test_the_pictures_of_a_batch_have_a_permit_each_and_more_than_there_are_is_the_callers_fault(
    store: ModelStore,
) -> None:
    async with stage(store, max_in_flight=3) as s:
        with pytest.raises(InvalidRequestError, match="4 pictures; this server takes no more than 3 at once"):
            await s.classifier.infer([picture("red")] * 4)
        with s.session.held():
            batch = asyncio.create_task(s.classifier.infer([picture("red"), picture("blue")]))
            await until(lambda: s.metric("regraft_in_flight") == 2)
            with pytest.raises(OverloadedError, match="full"):
                await s.classifier.infer([picture("red")] * 2)
            single = await s.begin(picture("green"))

        assert len((await batch).outputs) == 2
        assert (await single).predictions[0][0] == "green"
        assert s.metric("regraft_in_flight") == 0


@asynchronous
async def test_a_picture_for_which_there_is_no_memory_now_is_refused_and_a_stream_waits(store: ModelStore) -> None:
    image = picture("red")
    cost = quick_cost(image, lambda size: size)
    assert cost
    async with stage(store, memory_bytes=round(2.5 * cost.encoded_bytes)) as s:
        with s.session.held():
            taken = [await s.begin(image), await s.begin(image)]
            with pytest.raises(OverloadedError, match="no memory"):
                await s.classifier.classify(image)
            patient = asyncio.create_task(s.classifier.classify(image, on_admitted=lambda: None))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not patient.done()

        for request in (*taken, patient):
            assert (await request).predictions[0][0] == "red"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "empty"),
        (b"some text", "not a picture"),
        (picture("red")[:60], "cannot be decoded"),
        (b"\0" * 100_001, "the limit is 100,000"),
    ],
    ids=["empty", "text", "cut short", "too large"],
)
@asynchronous
async def test_bytes_that_are_no_picture_fail_alone_and_leave_nothing_behind(
    store: ModelStore, image: bytes, reason: str
) -> None:
    """Invariant 4."""
    async with stage(store, max_in_flight=4) as s:
        with s.session.held():
            mates = [await s.begin(picture("red", number)) for number in range(3)]
            with pytest.raises(InvalidImageError, match=reason):
                await s.classifier.classify(image)

        for number, mate in enumerate(mates):
            assert is_answer(await mate, picture("red", number), HEAD, LABELS)
        assert s.metric("regraft_in_flight") == 0


@asynchronous
async def test_a_request_cancelled_while_it_is_decoded_gives_its_permit_and_its_version_back(store: ModelStore) -> None:
    """Invariant 4."""
    publish_tiny(store, scale=2.0, promote=False)
    async with stage(store, max_in_flight=1) as s:
        slow = SlowPicture(picture("red"))
        request = asyncio.create_task(s.classifier.classify(slow))
        await until(slow.looked_at.is_set)
        old = s.models.get("")
        await s.promote(2)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

        assert s.metric("regraft_in_flight") == 0
        assert old.users == 0, "nobody holds the old version any more"
        assert (await s.classifier.classify(picture("red"))).served.version == 2
        slow.gate.set()


@asynchronous
async def test_a_request_cancelled_while_it_waits_for_a_lane_is_never_run(store: ModelStore) -> None:
    """Invariant 4."""
    async with stage(store) as s:
        runs = len(s.session.batches)
        with s.session.held():
            requests = [await s.begin(picture("red", number)) for number in range(4)]
            requests[2].cancel()
            await until(requests[2].done)

        for number in (0, 1, 3):
            assert is_answer(await requests[number], picture("red", number), HEAD, LABELS)
        assert [len(batch) for batch in s.session.batches[runs:]] == [1, 2]
        assert s.metric("regraft_in_flight") == 0


@asynchronous
async def test_a_request_that_comes_too_late_is_not_decoded(store: ModelStore) -> None:
    async with stage(store) as s:
        late = SlowPicture(picture("red"))
        with pytest.raises(DeadlineError, match="deadline"):
            await s.classifier.classify(late, deadline_s=asyncio.get_running_loop().time())

        assert not late.looked_at.is_set()
        assert s.metric("regraft_expired_total") == 1
        assert s.metric("regraft_in_flight") == 0


@asynchronous
async def test_a_deadline_that_passes_while_the_picture_waits_for_a_lane_is_an_error(store: ModelStore) -> None:
    """Invariant 4."""
    async with stage(store) as s:
        loop = asyncio.get_running_loop()
        with s.session.held():
            running = await s.begin(picture("red"))
            deadline_s = loop.time() + 0.2
            late = await s.begin(picture("blue"), deadline_s=deadline_s)
            await until(lambda: loop.time() > deadline_s)

        with pytest.raises(DeadlineError, match="waited for a lane"):
            await late
        assert (await running).predictions[0][0] == "red"


@asynchronous
async def test_a_run_that_fails_is_no_answer_and_the_next_one_is(store: ModelStore) -> None:
    async with stage(store) as s:
        s.session.failures.append(RuntimeError("the accelerator is gone"))
        with pytest.raises(RuntimeError, match="gone"):
            await s.classifier.classify(picture("red"))

        assert s.metric("regraft_in_flight") == 0
        assert (await s.classifier.classify(picture("red"))).predictions[0][0] == "red"


@asynchronous
async def test_a_run_that_fails_is_held_against_the_version_and_a_bad_picture_is_not(store: ModelStore) -> None:
    async with stage(store) as s:
        with pytest.raises(InvalidImageError):
            await s.classifier.classify(b"no picture")
        assert s.models.get("").failures == 0

        s.session.failures.append(RuntimeError("the accelerator is gone"))
        with pytest.raises(RuntimeError, match="gone"):
            await s.classifier.infer([picture("red")])
        assert s.models.get("").failures == 1


@asynchronous
async def test_a_machine_without_memory_is_not_held_against_the_version(store: ModelStore) -> None:
    async with stage(store) as s:
        s.session.failures.append(RuntimeError("bfc_arena.cc: Failed to allocate memory for requested buffer"))
        with pytest.raises(MemoryError):
            await s.classifier.classify(picture("red"))

        assert s.models.get("").failures == 0
        assert (await s.classifier.classify(picture("red"))).predictions[0][0] == "red"


@asynchronous
async def test_a_model_that_is_not_there_is_an_error_that_takes_no_permit(store: ModelStore) -> None:
    publish_tiny(store, name="unready", promote=False)
    async with stage(store, max_in_flight=1) as s:
        with pytest.raises(NotFoundError):
            await s.classifier.classify(picture("red"), name="cats")
        with pytest.raises(PreconditionError):
            await s.classifier.classify(picture("red"), name="unready")

        assert s.metric("regraft_in_flight") == 0
        assert (await s.classifier.classify(picture("red"), name="colours")).predictions[0][0] == "red"


@asynchronous
async def test_every_stage_of_a_classification_is_measured(store: ModelStore) -> None:
    async with stage(store) as s:
        await s.classifier.classify(picture("red"))

        for name in ("decode", "queue", "inference", "total"):
            assert s.metric("regraft_stage_seconds_count", stage=name) == 1


@dataclass(frozen=True)
class Request:
    """One request of the law below: its picture, whether it is any good, and when it is cancelled, if at all."""

    label: str
    number: int
    is_bad: bool
    cancelled_after: int | None


REQUESTS = st.builds(
    Request,
    st.sampled_from(sorted(COLOURS)),
    st.integers(0, 5),
    st.sampled_from([False, False, False, True]),
    st.one_of(st.none(), st.none(), st.integers(0, 4)),
)


@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=20),
    lanes=st.integers(1, 3),
    max_batch=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_answer_equals_the_unbatched_one_whatever_comes_beside_it(
    store: ModelStore, requests: list[Request], lanes: int, max_batch: int, seed: int
) -> None:
    """Invariant 4, through decoding and the network, over random arrivals, cancellations and bad pictures.

    The store is only read, so that all examples may share one.
    """
    asyncio.run(_play(store, requests, lanes, max_batch, random.Random(seed)))


async def _play(store: ModelStore, requests: list[Request], lanes: int, max_batch: int, turns: random.Random) -> None:
    async with stage(store, lanes=lanes, max_batch=max_batch) as s, asyncio.timeout(PATIENCE_S):

        async def ask(request: Request) -> Answer | None:
            image = picture(request.label, request.number)
            task = asyncio.create_task(s.classifier.classify(image[:70] if request.is_bad else image))
            if request.cancelled_after is not None:
                for _ in range(request.cancelled_after):
                    await asyncio.sleep(0)
                task.cancel()
            with suppress(asyncio.CancelledError, InvalidImageError):
                return await task
            return None

        asked = []
        for request in requests:
            asked.append(asyncio.create_task(ask(request)))
            for _ in range(turns.randrange(4)):
                await asyncio.sleep(0)
        answers = await asyncio.gather(*asked)
        assert s.metric("regraft_in_flight") == 0
    for request, answer in zip(requests, answers, strict=True):
        if request.is_bad:
            assert answer is None
        elif request.cancelled_after is None:
            assert answer is not None
        if answer is not None:
            assert is_answer(answer, picture(request.label, request.number), HEAD, LABELS)


def test_the_answers_expected_here_are_those_of_the_backbone() -> None:
    features = tiny_features(tiny_backbone(), LABELS, pictures=1)
    index = {
        label: row for row, label in zip(range(3), (features.labels[i] for i in features.label_index), strict=True)
    }

    for label in LABELS:
        from_backbone = HEAD.probabilities(features.embedding[[index[label]]])[0].tolist()
        assert list(expected(picture(label), HEAD, LABELS).values()) == pytest.approx(from_backbone, abs=1e-5)
