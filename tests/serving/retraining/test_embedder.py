import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import numpy as np
import pytest

from regraft.image.decode import decode_crop
from regraft.image.spec import ImageSpec
from regraft.label_rules import image_hash
from regraft.model.artifact import FloatArray
from regraft.model.card import EmbeddingKey
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import Bounds
from regraft.stores.models import ModelStore
from regraft.stores.unlabelled.pool import NewPicture
from serving.inference.classifier import Classifier
from serving.inference.execution_plan import ExecutionPlan
from serving.inference.registry import ModelRegistry
from serving.retraining.embedder import BackgroundEmbedder
from serving.telemetry.metrics import Metrics
from serving.threads import Threads
from tests.serving.fakes import Engines, GatedSession
from tests.tiny import begin_tiny, picture, publish_tiny, tiny_backbone, tiny_features
from tests.waiting import asynchronous, until


@dataclass
class Stage:
    store: ModelStore
    examples: ExamplesStore
    engines: Engines
    models: ModelRegistry
    classifier: Classifier
    embedder: BackgroundEmbedder
    task: "asyncio.Task[None]"

    @property
    def session(self) -> GatedSession:
        return self.engines.sessions[0]

    @property
    def key(self) -> EmbeddingKey:
        card = self.models.get("colours").card
        return card.embedding_key

    def add(self, numbers: Sequence[int], label: str = "grey", model: str = "colours") -> list[str]:
        for number in numbers:
            self.examples.add(model, picture(label, number), label)
        return [image_hash(picture(label, number)) for number in numbers]

    def embedded(self, hashes: Sequence[str]) -> dict[str, FloatArray]:
        return self.examples.embeddings.get(self.key, hashes)

    async def until_embedded(self, hashes: Sequence[str]) -> None:
        await until(lambda: len(self.embedded(hashes)) == len(hashes))

    async def until_the_database_was_asked(self) -> None:
        """Let the embedder do what it does at its start."""
        hashes = self.add([1])
        self.embedder.wake()
        await self.until_embedded(hashes)

    def assert_embedding_of_grey_0(self, sha256: str) -> None:
        expected = tiny_features(tiny_backbone(), ("grey",), pictures=1)
        np.testing.assert_allclose(self.embedded([sha256])[sha256], expected.embedding[0], atol=1e-5)


@asynccontextmanager
async def stage(store: ModelStore, max_queue: int = 8, every_s: float = 3600) -> AsyncIterator[Stage]:
    metrics, threads, engines = Metrics(), Threads(), Engines(ExecutionPlan(lanes=1, threads=1, max_batch=1))
    examples = ExamplesStore(store.root / ".examples")
    models = ModelRegistry(store, engines, max_queue=max_queue, metrics=metrics, threads=threads)
    await models.refresh()
    classifier = Classifier(models, max_in_flight=8, metrics=metrics)
    embedder = BackgroundEmbedder(models, examples)
    task = asyncio.create_task(embedder.run(every_s))
    try:
        yield Stage(store, examples, engines, models, classifier, embedder, task)
    finally:
        engines.open_all_gates()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        models.close()
        threads.close()
        examples.close()


@asynchronous
async def test_new_examples_are_embedded_with_the_backbone_that_serves(store: ModelStore) -> None:
    async with stage(store) as s:
        hashes = s.add(range(3))
        s.embedder.wake()
        await s.until_embedded(hashes)

        expected = tiny_features(tiny_backbone(), ("grey",), pictures=3)
        for sha256, embedding in zip(expected.sha256, expected.embedding, strict=True):
            np.testing.assert_allclose(s.embedded(hashes)[sha256], embedding, atol=1e-5)


@asynchronous
async def test_pictures_without_labels_are_embedded_after_those_with_one(store: ModelStore) -> None:
    async with stage(store) as s:
        await s.until_the_database_was_asked()
        unlabelled = [NewPicture(picture("red", number)) for number in range(2)]
        with s.session.held():
            s.examples.pool.add("colours", unlabelled, Bounds())
            labelled = s.add([0])
            before = len(s.session.batches)
            s.embedder.wake()
        await s.until_embedded([*labelled, *(new.sha256 for new in unlabelled)])

        (first, *_) = s.session.batches[before]
        np.testing.assert_array_equal(first, decode_crop(picture("grey"), s.models.get("colours").card.image))
        s.assert_embedding_of_grey_0(labelled[0])


@asynchronous
async def test_what_a_crash_left_without_an_embedding_is_found_at_the_start(store: ModelStore) -> None:
    with_examples = ExamplesStore(store.root / ".examples")
    with_examples.add("colours", picture("grey"), "grey")
    with_examples.pool.add("colours", [NewPicture(picture("red"))], Bounds())
    with_examples.close()
    async with stage(store) as s:
        await s.until_embedded([image_hash(picture("grey")), image_hash(picture("red"))])


@asynchronous
async def test_what_another_process_labels_is_found_by_the_clock(store: ModelStore) -> None:
    async with stage(store, every_s=0.05) as s:
        await s.until_embedded(s.add([0]))
        await s.until_embedded(s.add([1]))


@asynchronous
async def test_many_more_than_fit_in_one_go_are_all_embedded_once(store: ModelStore) -> None:
    async with stage(store) as s:
        runs = len(s.session.batches)
        hashes = s.add(range(50))
        s.embedder.wake()
        await s.until_embedded(hashes)

        assert len(s.session.batches) - runs == 50


@asynchronous
async def test_examples_of_a_model_that_is_not_served_wait(store: ModelStore) -> None:
    async with stage(store) as s:
        others = s.add(range(3), model="animals")
        hashes = s.add(range(5, 8))
        s.embedder.wake()
        await s.until_embedded(hashes)

        assert s.embedded(others) == {}


@asynchronous
async def test_a_new_backbone_embeds_everything_anew(store: ModelStore) -> None:
    async with stage(store) as s:
        hashes = s.add(range(3))
        s.embedder.wake()
        await s.until_embedded(hashes)
        before = s.embedded(hashes)
        publish_tiny(store, scale=2.0)
        await s.models.refresh()
        s.embedder.wake()
        await s.until_embedded(hashes)

        for sha256, embedding in s.embedded(hashes).items():
            np.testing.assert_allclose(embedding, 2 * before[sha256], atol=1e-5)


@asynchronous
async def test_a_picture_that_is_gone_or_damaged_does_not_keep_the_others_from_being_embedded(
    store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(store) as s:
        hashes = s.add(range(20))
        s.examples.image_file(hashes[3]).unlink()
        s.examples.image_file(hashes[7]).write_bytes(b"damaged")
        whole = [sha256 for number, sha256 in enumerate(hashes) if number not in (3, 7)]
        s.embedder.wake()
        await s.until_embedded(whole)
        more = s.add(range(20, 23))
        s.embedder.wake()
        await s.until_embedded(more)

        complaints = [record for record in caplog.records if "cannot be embedded" in record.message]
        assert len(complaints) == 2, "each is tried once"
        assert s.embedded([hashes[3], hashes[7]]) == {}


@asynchronous
async def test_more_damaged_pictures_than_fit_in_one_go_do_not_hide_the_others(store: ModelStore) -> None:
    async with stage(store) as s:
        for sha256 in s.add(range(40)):
            s.examples.image_file(sha256).write_bytes(b"damaged")
        good = s.add(range(100, 110))
        s.embedder.wake()
        await s.until_embedded(good)


@asynchronous
async def test_while_requests_fill_their_queue_what_shall_be_embedded_waits_and_is_embedded_after_them(
    store: ModelStore,
) -> None:
    async with stage(store, max_queue=1) as s:
        with s.session.held():
            runs = len(s.session.batches)
            first = asyncio.create_task(s.classifier.classify(picture("red")))
            await until(lambda: len(s.session.batches) > runs)
            second = asyncio.create_task(s.classifier.classify(picture("red", 1)))
            await until(lambda: s.models.get("").backbone.depth == 1)
            hashes = s.add(range(3))
            s.embedder.wake()
            assert s.embedded(hashes) == {}
        await asyncio.gather(first, second)
        await s.until_embedded(hashes)


@asynchronous
async def test_a_run_that_fails_does_not_end_the_embedding_for_ever(store: ModelStore) -> None:
    async with stage(store) as s:
        s.session.failures.append(RuntimeError("out of memory"))
        s.add([0])
        s.embedder.wake()
        await until(lambda: not s.session.failures)
        later = s.add(range(1, 4))
        s.embedder.wake()
        await until(lambda: s.task.done() or len(s.embedded(later)) == len(later))

        assert not s.task.done()


@asynchronous
async def test_a_request_goes_before_all_that_waits_to_be_embedded(store: ModelStore) -> None:
    async with stage(store) as s:
        runs = len(s.session.batches)
        with s.session.held():
            hashes = s.add(range(30))
            s.embedder.wake()
            await until(lambda: len(s.session.batches) > runs)
            request = asyncio.create_task(s.classifier.classify(picture("red")))
            await until(lambda: s.models.get("").backbone.depth == 1)
        answer = await request

        assert answer.predictions[0][0] == "red"
        assert len(s.embedded(hashes)) < 30, "the request did not wait for all of them"
        await s.until_embedded(hashes)


@asynchronous
async def test_it_holds_no_version_while_it_has_nothing_to_do(store: ModelStore) -> None:
    publish_tiny(store, scale=2.0, promote=False)
    async with stage(store) as s:
        hashes = s.add([0])
        s.embedder.wake()
        await s.until_embedded(hashes)
        old = s.models.get("")
        await s.models.move("colours", 2, who="test", why="")

        await until(lambda: old.users == 0)


@asynchronous
async def test_a_crop_that_is_offered_is_embedded_without_the_file_and_without_the_database(store: ModelStore) -> None:
    async with stage(store) as s:
        served, sha256 = s.models.get(""), image_hash(picture("grey", 0))
        s.embedder.offer(served, sha256, decode_crop(picture("grey", 0), served.card.image))
        await s.until_embedded([sha256])

        s.assert_embedding_of_grey_0(sha256)


@asynchronous
async def test_what_there_is_no_room_for_is_found_in_the_database(store: ModelStore) -> None:
    async with stage(store) as s:
        await s.until_the_database_was_asked()
        (sha256,) = s.add([0])
        s.embedder.offer(s.models.get(""), sha256, np.zeros((5_000, 5_000, 3), np.uint8))
        await s.until_embedded([sha256])

        s.assert_embedding_of_grey_0(sha256)


@asynchronous
async def test_a_crop_that_was_cut_for_another_version_is_cut_anew(store: ModelStore) -> None:
    async with stage(store) as s:
        await s.until_the_database_was_asked()
        (sha256,) = s.add([0])
        served = s.models.get("")
        larger = ImageSpec(resize_px=2 * served.card.image.resize_px, crop_px=2 * served.card.image.crop_px)
        other = replace(served, card=served.card.model_copy(update={"image": larger}))
        s.embedder.offer(other, sha256, decode_crop(picture("grey", 0), larger))
        await s.until_embedded([sha256])

        s.assert_embedding_of_grey_0(sha256)


@asynchronous
async def test_examples_of_a_model_without_a_version_are_embedded_with_its_backbone(empty_store: ModelStore) -> None:
    begin_tiny(empty_store)
    async with stage(empty_store) as s:
        hashes = s.add(range(3))
        s.embedder.wake()
        key = s.models.held("colours").key
        await until(lambda: len(s.examples.embeddings.get(key, hashes)) == 3)

        expected = tiny_features(tiny_backbone(), ("grey",), pictures=3)
        vectors = s.examples.embeddings.get(key, hashes)
        for sha256, embedding in zip(expected.sha256, expected.embedding, strict=True):
            np.testing.assert_allclose(vectors[sha256], embedding, atol=1e-5)
