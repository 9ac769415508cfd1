import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from regraft.errors import DrainingError, StorageError
from regraft.image.spec import Crop
from regraft.label_rules import LabelPolicy, image_hash
from regraft.stores.examples import ExamplesStore
from regraft.stores.labels import AddOutcome, NewExample
from regraft.stores.models import ModelStore
from regraft.stores.unlabelled.pool import NewPicture, PoolOutcome
from serving.inference.registry import ModelRegistry
from serving.retraining.add_examples import ExampleIntake, IntakeResult, IntakeRules, Sender
from serving.retraining.decoders import Decoders, Encoded
from serving.telemetry.metrics import Metrics
from serving.threads import Pool, Threads
from tests.serving.fakes import Engines
from tests.tiny import begin_tiny, picture
from tests.waiting import PATIENCE_S, asynchronous, until


class SlowExamples(ExamplesStore):
    """Writes only while its gate is open, remembers who sent what, and has no room for some pictures."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.batches: list[tuple[str, list[bytes]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.no_room_for: set[bytes] = set()

    def add_all(
        self, model: str, batch: Sequence[NewExample], *, caller: str = "", hourly_quota: int = 0
    ) -> list[AddOutcome]:
        self.batches.append((caller, [new.data for new in batch]))
        assert self.gate.wait(PATIENCE_S)
        if self.no_room_for & {new.data for new in batch}:
            raise StorageError("no room")
        return super().add_all(model, batch, caller=caller, hourly_quota=hourly_quota)


class CountingDecoders(Decoders):
    """Remembers how many pictures of each batch were decoded, or found to be none."""

    def __init__(self, threads: Pool) -> None:
        super().__init__(threads)
        self.done: list[int] = []
        self.failure: Exception | None = None

    async def decode(self, pictures: Sequence[Encoded]) -> list[Crop | Exception]:
        if self.failure:
            raise self.failure
        decoded = await super().decode(pictures)
        self.done.append(len(decoded))
        return decoded


@dataclass
class Stage:
    examples: SlowExamples
    decoders: CountingDecoders
    intake: ExampleIntake
    threads: Threads
    kept: list[str] = field(default_factory=list)

    async def begin(self, image: bytes, sender: Sender) -> "asyncio.Task[IntakeResult]":
        """Send a picture, and let it get as far as it can without a thread."""
        task = asyncio.create_task(self.intake.add("", NewExample(image, "grey"), sender))
        await asyncio.sleep(0)
        return task

    async def writing(self, batches: int) -> None:
        await until(lambda: len(self.examples.batches) == batches)

    async def hold_up(self, sender: Sender) -> "asyncio.Task[IntakeResult]":
        """Send a picture that is being written until the gate is opened."""
        self.examples.gate.clear()
        first = await self.begin(picture("red"), sender)
        await self.writing(1)
        return first


@asynccontextmanager
async def stage(store: ModelStore, labels: LabelPolicy = "open") -> AsyncIterator[Stage]:
    threads, kept = Threads(), list[str]()
    examples, decoders = SlowExamples(store.root / ".examples"), CountingDecoders(threads.pictures)
    models = ModelRegistry(store, Engines(), max_queue=8, metrics=Metrics(), threads=threads)
    await models.refresh()
    intake = ExampleIntake(
        models, examples, decoders, lambda _served, sha256, _crop: kept.append(sha256), IntakeRules(labels)
    )
    try:
        yield Stage(examples, decoders, intake, threads, kept)
    finally:
        examples.gate.set()
        models.close()
        threads.close()
        examples.close()


@asynchronous
async def test_whoever_waits_for_a_batch_that_comes_to_nothing_is_told_and_the_next_one_is_taken_in(
    store: ModelStore,
) -> None:
    sender = Sender("ada")
    async with stage(store) as s:
        s.decoders.failure = MemoryError("no room for the crops")
        adding = [await s.begin(picture("grey", number), sender) for number in range(3)]
        ends = await asyncio.wait_for(asyncio.gather(*adding, return_exceptions=True), PATIENCE_S)
        assert ends == [s.decoders.failure] * 3

        s.decoders.failure = None
        assert (await (await s.begin(picture("grey"), sender))).outcome == AddOutcome.ACCEPTED


@asynchronous
async def test_pictures_that_come_while_others_are_taken_in_are_taken_in_together(store: ModelStore) -> None:
    images = [picture("grey", number) for number in range(6)]
    sender = Sender("ada")
    async with stage(store) as s:
        first = await s.hold_up(sender)
        others = [await s.begin(image, sender) for image in images]
        s.examples.gate.set()
        answers = await asyncio.gather(first, *others)

        assert [images for _, images in s.examples.batches[1:]] == [images]
        assert [answer.outcome for answer in answers] == [AddOutcome.ACCEPTED] * 7
        assert s.kept[1:] == [image_hash(image) for image in images]


@asynchronous
async def test_nobody_waits_for_all_the_pictures_of_another(store: ModelStore) -> None:
    async with stage(store) as s:
        s.examples.gate.clear()
        many, one = Sender("many"), Sender("one")
        tasks = [await s.begin(picture("grey", number), many) for number in range(70)]
        await s.writing(1)
        tasks.append(await s.begin(picture("grey", 100), one))
        s.examples.gate.set()
        await asyncio.gather(*tasks)

        callers = [caller for caller, _ in s.examples.batches]
        assert callers.index("one") < len(callers) - 1, "some of the others' came after it"
        assert sum(len(images) for _, images in s.examples.batches) == 71


@asynchronous
async def test_a_damaged_picture_is_rejected_alone_among_those_it_came_with(store: ModelStore) -> None:
    images = [picture("grey", 0), picture("grey", 1), b"no picture", picture("grey", 2)]
    async with stage(store) as s:
        s.examples.gate.clear()
        sender = Sender("ada")
        tasks = [await s.begin(image, sender) for image in images]
        s.examples.gate.set()
        answers = await asyncio.gather(*tasks)

        accepted, rejected = AddOutcome.ACCEPTED, AddOutcome.REJECTED
        assert [answer.outcome for answer in answers] == [accepted, accepted, rejected, accepted]
        assert "not a picture" in answers[2].reason


@asynchronous
async def test_what_nobody_waits_for_any_more_is_not_taken_in(store: ModelStore) -> None:
    async with stage(store) as s:
        sender = Sender("ada")
        first = await s.hold_up(sender)
        gone, stays = await s.begin(picture("grey", 1), sender), await s.begin(picture("grey", 2), sender)
        gone.cancel()
        s.examples.gate.set()
        await asyncio.gather(first, stays)

        assert gone.cancelled()
        assert [images for _, images in s.examples.batches] == [[picture("red")], [picture("grey", 2)]]
        assert s.decoders.done == [1, 1]


@asynchronous
async def test_where_the_disk_fails_it_is_not_asked_again_for_those_who_are_gone(store: ModelStore) -> None:
    async with stage(store) as s:
        images, sender = [picture("grey", number) for number in range(3)], Sender("ada")
        s.examples.no_room_for = {images[0]}
        s.examples.gate.clear()
        tasks = [asyncio.create_task(s.intake.add("", NewExample(image, "grey"), sender)) for image in images]
        await s.writing(1)
        for task in tasks[1:]:
            task.cancel()
        s.examples.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert [tried for _, tried in s.examples.batches] == [images, images[:1]]


@asynchronous
async def test_threads_that_are_gone_leave_nobody_waiting(store: ModelStore) -> None:
    async with stage(store) as s:
        s.threads.close()
        tasks = [await s.begin(picture("grey", number), Sender("ada")) for number in range(3)]
        answers = await asyncio.gather(*tasks, return_exceptions=True)

        assert [type(answer) for answer in answers] == [DrainingError] * 3


@asynchronous
async def test_where_a_batch_cannot_be_written_each_of_it_has_its_own_answer(store: ModelStore) -> None:
    images = [picture("grey", number) for number in range(4)]
    async with stage(store) as s:
        s.examples.no_room_for = {images[2]}
        s.examples.gate.clear()
        sender = Sender("ada")
        tasks = [await s.begin(image, sender) for image in images]
        s.examples.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)

        assert [type(answer) for answer in answers] == [IntakeResult, IntakeResult, StorageError, IntakeResult]
        assert {example.sha256 for example in s.examples.labels.in_force("colours")} == {
            image_hash(image) for image in images if image != images[2]
        }


@asynchronous
async def test_what_nobody_waits_for_any_more_as_it_is_written_is_not_kept(store: ModelStore) -> None:
    async with stage(store) as s:
        given_up = await s.hold_up(Sender("ada"))
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        s.examples.gate.set()
        await (await s.begin(picture("blue"), Sender("ada")))

        assert [example.sha256 for example in s.examples.labels.in_force("colours")] == [image_hash(picture("blue"))]


@asynchronous
async def test_a_model_without_a_version_takes_examples(empty_store: ModelStore) -> None:
    begin_tiny(empty_store)
    async with stage(empty_store) as s:
        taken = await s.intake.add("colours", NewExample(picture("grey"), "grey"), Sender("ada"))

        assert taken.outcome == AddOutcome.ACCEPTED
        assert s.examples.labels.by_label("colours") == {"grey": 1}
        assert s.kept == [taken.sha256]


@asynchronous
async def test_a_model_that_was_created_with_a_closed_set_takes_its_own_labels_only(store: ModelStore) -> None:
    begin_tiny(store, "fixed", ("red", "blue"), "closed")
    async with stage(store) as s:
        for model, label, outcome in (
            ("fixed", "red", AddOutcome.ACCEPTED),
            ("fixed", "green", AddOutcome.REJECTED),
            ("colours", "lime", AddOutcome.ACCEPTED),
        ):
            taken = await s.intake.add(model, NewExample(picture("green"), label), Sender("ada"))
            assert taken.outcome == outcome, (model, label)
            if outcome == AddOutcome.REJECTED:
                assert taken.reason == ("label 'green': model 'fixed' was created with a closed set, only red, blue")


@asynchronous
async def test_a_closed_server_takes_the_labels_that_a_model_was_created_with(empty_store: ModelStore) -> None:
    begin_tiny(empty_store, labels=("red", "blue"))
    async with stage(empty_store, "closed") as s:
        for label, outcome in (("red", AddOutcome.ACCEPTED), ("green", AddOutcome.REJECTED)):
            assert (await s.intake.add("", NewExample(picture("red"), label), Sender(label))).outcome == outcome


@asynchronous
async def test_pictures_with_and_without_labels_are_written_apart_and_each_has_its_answer(
    store: ModelStore,
) -> None:
    sender = Sender("ada")
    async with stage(store) as s:
        first = await s.hold_up(sender)
        unlabelled = [
            asyncio.create_task(s.intake.add_picture("", NewPicture(image), sender))
            for image in (picture("grey", 1), b"no picture", picture("grey", 2))
        ]
        labelled = await s.begin(picture("grey", 3), sender)
        s.examples.gate.set()
        ends = await asyncio.wait_for(asyncio.gather(first, *unlabelled, labelled), PATIENCE_S)

        assert [end.outcome for end in ends] == [
            AddOutcome.ACCEPTED,
            PoolOutcome.ACCEPTED,
            PoolOutcome.REJECTED,
            PoolOutcome.ACCEPTED,
            AddOutcome.ACCEPTED,
        ]
        assert {each.sha256 for each in s.examples.pool.page("colours", most=9)} == {ends[1].sha256, ends[3].sha256}
        assert {each.sha256 for each in s.examples.labels.in_force("colours")} == {ends[0].sha256, ends[4].sha256}
        assert sorted(s.kept) == sorted(end.sha256 for end in ends if end.outcome is not PoolOutcome.REJECTED)
        assert sender.outcomes == {"accepted": 4, "rejected": 1}
