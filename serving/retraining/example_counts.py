"""Counts of examples by state, for Prometheus."""

from functools import partial

from regraft.stores.examples import ExamplesStore
from serving.inference.registry import ModelRegistry
from serving.supervisor import do_all
from serving.telemetry.metrics import Metrics


async def count_examples(models: ModelRegistry, examples: ExamplesStore, metrics: Metrics) -> None:
    """Count the examples of every model that answers."""

    async def count(name: str) -> None:
        states = await models.threads.database.run(examples.labels.states, name, models.get(name).key)
        for state, number in states.items():
            metrics.examples_stored.labels(name, state).set(number)

    await do_all(partial(count, name) for name in models.names())
