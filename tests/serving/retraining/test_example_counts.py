from functools import partial

from regraft.stores.examples import ExamplesStore
from regraft.stores.images import Bounds
from regraft.stores.models import ModelStore
from regraft.stores.unlabelled.pool import NewPicture
from serving.inference.execution_plan import ExecutionPlan
from serving.inference.registry import ModelRegistry
from serving.retraining.embedder import BackgroundEmbedder
from serving.retraining.example_counts import count_examples
from serving.supervisor import Supervisor
from serving.telemetry.metrics import Metrics
from serving.threads import Threads
from tests.serving.fakes import Engines
from tests.serving.metric_samples import value_of
from tests.tiny import picture
from tests.waiting import asynchronous, until


@asynchronous
async def test_examples_are_shown_as_waiting_then_as_embedded_and_what_was_removed_beside_them(
    store: ModelStore,
) -> None:
    examples, metrics, threads = ExamplesStore(store.root / ".examples"), Metrics(), Threads()
    models = ModelRegistry(store, Engines(ExecutionPlan(1, 1, 1)), max_queue=8, metrics=metrics, threads=threads)
    await models.refresh()

    def shown() -> dict[str, float | None]:
        states = ("embedded", "waiting", "removed", "quarantine")
        return {state: value_of(metrics.registry, "regraft_examples_stored", {"state": state}) for state in states}

    for number in range(3):
        examples.add("colours", picture("red", number), "red")
    examples.pool.add("colours", [NewPicture(picture("grey"))], Bounds())
    examples.labels.remove("colours", examples.labels.in_force("colours")[0].sha256)
    tasks = Supervisor(metrics)
    tasks.repeat("count examples", partial(count_examples, models, examples, metrics), 0.01)
    await until(lambda: shown() == {"embedded": 0, "waiting": 2, "removed": 1, "quarantine": 0})

    tasks.start("embed examples", partial(BackgroundEmbedder(models, examples).run, 3600))
    await until(lambda: shown() == {"embedded": 2, "waiting": 0, "removed": 1, "quarantine": 0})
    await until(lambda: value_of(metrics.registry, "regraft_unlabelled_stored", {"state": "embedded"}) == 1)

    await tasks.stop()
    models.close()
    threads.close()
    examples.close()
