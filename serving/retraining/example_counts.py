"""Counts of examples and of the pool by state, for Prometheus."""

from functools import partial

from regraft.stores.examples import ExamplesStore
from serving.inference.registry import ModelRegistry
from serving.supervisor import do_all
from serving.telemetry.metrics import Metrics


async def count_examples(models: ModelRegistry, examples: ExamplesStore, metrics: Metrics) -> None:
    """Count examples and pool of every model that takes some."""

    async def count(name: str) -> None:
        key = models.held(name).key
        for rows, gauge in ((examples.labels, metrics.examples_stored), (examples.pool, metrics.unlabelled_stored)):
            states = await models.threads.database.run(rows.states, name, key)
            for state, number in states.items():
                gauge.labels(name, state).set(number)

    await do_all(partial(count, name) for name in models.names_held())
