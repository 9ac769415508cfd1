import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest

from regraft.errors import NotFoundError
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import Bounds
from regraft.stores.models import ModelStore
from serving.inference.classifier import Classifier
from serving.inference.execution_plan import ExecutionPlan
from serving.inference.registry import ModelRegistry
from serving.retraining.request_sampler import RequestSampler
from serving.telemetry.metrics import Metrics
from serving.threads import Threads
from tests.serving.fakes import Engines
from tests.tiny import picture
from tests.waiting import asynchronous, until


@dataclass
class Stage:
    examples: ExamplesStore
    classifier: Classifier
    metrics: Metrics

    def count(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("regraft_kept_requests_total", {"outcome": outcome}) or 0.0


@asynccontextmanager
async def stage(store: ModelStore, rate: float = 1.0, *, keeps: bool = True) -> AsyncIterator[Stage]:
    metrics, threads = Metrics(), Threads()
    examples = ExamplesStore(store.root / ".examples")
    models = ModelRegistry(
        store, Engines(ExecutionPlan(lanes=1, threads=1, max_batch=4)), max_queue=8, metrics=metrics, threads=threads
    )
    await models.refresh()
    sampler = RequestSampler(examples.requests, rate, Bounds(), metrics, threads)
    classifier = Classifier(models, max_in_flight=8, metrics=metrics, keep=sampler.offer)
    task = asyncio.create_task(sampler.run()) if keeps else None
    try:
        yield Stage(examples, classifier, metrics)
    finally:
        if task:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        models.close()
        threads.close()
        examples.close()


@asynchronous
async def test_a_served_picture_is_kept_with_its_prediction(store: ModelStore) -> None:
    async with stage(store) as s:
        answer = await s.classifier.classify(picture("red"))
        await until(lambda: s.count("kept") == 1)

        kept = s.examples.requests.find(answer.request_id)
        assert (kept.model, kept.version, kept.label) == ("colours", 1, "red")
        assert kept.probability == pytest.approx(answer.predictions[0][1])
        assert kept.novelty == pytest.approx(answer.novelty)
        assert s.examples.requests.image(kept) == picture("red")


@asynchronous
async def test_of_a_rate_about_that_share_is_kept(store: ModelStore) -> None:
    async with stage(store, rate=0.25) as s:
        for n in range(200):
            await s.classifier.classify(picture("red", n % 3))
        await until(lambda: s.count("kept") > 20)  # in one batch or in several

        assert s.count("dropped") == 0
    assert s.count("kept") < 85  # 20 and 85 are more than four standard deviations off


@asynchronous
async def test_at_rate_zero_nothing_is_kept(store: ModelStore) -> None:
    async with stage(store, rate=0.0) as s:
        answer = await s.classifier.classify(picture("red"))

        with pytest.raises(NotFoundError):
            s.examples.requests.find(answer.request_id)
    assert (s.count("kept"), s.count("dropped")) == (0, 0)


@asynchronous
async def test_a_disk_that_does_not_keep_up_costs_pictures_not_requests(store: ModelStore) -> None:
    async with stage(store, keeps=False) as s:
        for _ in range(300):
            await s.classifier.classify(picture("red"))

        assert s.count("dropped") == 300 - 256


@asynchronous
async def test_a_disk_that_refuses_is_said_once_and_harms_no_request(
    store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(store) as s:
        blocked = store.root / ".examples/requests"
        blocked.write_text("a file where a folder should be")
        with caplog.at_level(logging.WARNING, "regraft.keeper"):
            for n in range(3):
                assert (await s.classifier.classify(picture("red", n))).predictions
                await until(lambda n=n: s.count("dropped") == n + 1)  # type: ignore[misc]  # bound on purpose
        blocked.unlink()
        await s.classifier.classify(picture("red", 4))
        await until(lambda: s.count("kept") == 1)

    assert len(caplog.records) == 1
    assert "requests are not kept" in caplog.text
