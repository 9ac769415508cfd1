from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from regraft.errors import NotFoundError
from regraft.label_rules import image_hash
from regraft.model.artifact import FloatArray
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import Bounds
from regraft.stores.models import ModelStore
from regraft.stores.unlabelled.pool import NewPicture
from regraft.stores.unlabelled.requests import KeptRequest
from serving.inference.models_in_memory import ServedModel
from serving.inference.registry import ModelRegistry
from serving.retraining.suggester import Suggester
from serving.telemetry.metrics import Metrics
from serving.threads import Threads
from tests.serving.fakes import Engines
from tests.waiting import asynchronous


@asynccontextmanager
async def served_model(store: ModelStore) -> AsyncIterator[tuple[ServedModel, ExamplesStore]]:
    threads, examples = Threads(), ExamplesStore(store.root / ".examples")
    models = ModelRegistry(store, Engines(), max_queue=8, metrics=Metrics(), threads=threads)
    await models.refresh()
    yield models.get("colours"), examples
    models.close()
    threads.close()
    examples.close()


def data(number: int) -> bytes:
    return f"picture {number}".encode()


def vectors(served: ServedModel, numbers: range) -> dict[str, FloatArray]:
    size = int(served.head.weight.shape[1])
    return {
        image_hash(data(number)): np.random.default_rng(number).normal(size=size).astype(np.float32)
        for number in numbers
    }


@asynchronous
async def test_the_pool_and_kept_requests_are_chosen_from_together_each_picture_once(store: ModelStore) -> None:
    async with served_model(store) as (served, examples):
        known = vectors(served, range(12))
        examples.embeddings.put(served.key, known)
        examples.pool.add("colours", [NewPicture(data(number)) for number in range(8)], Bounds())
        kept = [
            KeptRequest(f"id{number}", "colours", 1, sha256, "red", 0.5, 0.1, served.key, known[sha256])
            for number in range(6, 12)
            for sha256 in (image_hash(data(number)),)
        ]
        examples.requests.keep([(each, data(int(each.id[2:]))) for each in kept], Bounds())
        suggester = Suggester(store, examples)

        found = suggester.suggest(served, 12)

        numbers = {image_hash(data(number)): number for number in range(12)}
        assert len(found) == len({each.sha256 for each in found})
        assert {each.request_id for each in found} >= {"", "id8"}
        for each in found:
            number = numbers[each.sha256]
            assert each.request_id == ("" if number < 8 else f"id{number}")  # one that is in both is of the pool
            assert suggester.image(each) == data(number)
        gone = next(each for each in found if not each.request_id)
        examples.pool.remove("colours", [gone.sha256])
        with pytest.raises(NotFoundError, match="was labelled or removed meanwhile"):
            suggester.image(gone)


@asynchronous
async def test_what_is_like_a_labelled_picture_or_one_trained_on_is_not_chosen_but_by_lot(store: ModelStore) -> None:
    async with served_model(store) as (served, examples):
        size = int(served.head.weight.shape[1])
        labelled = np.random.default_rng(0).normal(size=size).astype(np.float32)
        pool = {image_hash(data(number)): labelled + np.float32(1e-4 * number) for number in range(5)}
        other = vectors(served, range(5, 8))
        examples.embeddings.put(served.key, {image_hash(b"labelled"): labelled, **pool, **other})
        examples.add("colours", b"labelled", "red")
        examples.pool.add("colours", [NewPicture(data(number)) for number in range(8)], Bounds())

        found = Suggester(store, examples).suggest(served, 8)

        assert {each.sha256 for each in found if each.suggestion.reason != "random"} <= other.keys()


@asynchronous
async def test_what_the_backbone_has_not_seen_yet_is_not_chosen(store: ModelStore) -> None:
    async with served_model(store) as (served, examples):
        examples.pool.add("colours", [NewPicture(data(number)) for number in range(2)], Bounds())
        examples.embeddings.put(served.key, vectors(served, range(1)))

        assert [each.sha256 for each in Suggester(store, examples).suggest(served, 9)] == [image_hash(data(0))]
