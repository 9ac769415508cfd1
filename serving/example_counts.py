"""Shows how many examples each model has, by state. Counted now and then: a scrape must not wait for a database."""

import asyncio
import logging
from typing import Final

from regraft.errors import RegraftError
from regraft.examples import ExamplesStore
from serving.metrics import Metrics
from serving.models import Models

log = logging.getLogger("regraft.examples")

_EVERY_S: Final = 15.0  # as often as Prometheus usually asks


async def count_examples(models: Models, examples: ExamplesStore, metrics: Metrics, every_s: float = _EVERY_S) -> None:
    """Count for ever, every ``every_s`` seconds; cancel the task to stop."""
    while True:
        for name in models.names():
            key = models.get(name).key
            try:
                states = await models.threads.database.run(examples.states, name, key)
            except RegraftError as error:
                log.warning("the examples of %s cannot be counted: %s", name, error)
                continue
            for state, count in states.items():
                metrics.examples_stored.labels(name, state).set(count)
        await asyncio.sleep(every_s)
