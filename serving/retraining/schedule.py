"""Schedule of retrains, by the clock and new labels."""

import logging
from datetime import UTC, datetime
from functools import partial
from typing import Final

from regraft.errors import PreconditionError
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobState
from regraft.stores.models import GateMode
from serving.inference.registry import ModelRegistry
from serving.lifecycle.first_versions import FirstVersions
from serving.retraining.jobs import JobRunner
from serving.supervisor import do_all

log = logging.getLogger("regraft.schedule")

_LOOKS_PER_PERIOD: Final = 10
_LOOK_EVERY_S: Final = 60.0


class RetrainSchedule:
    """A schedule of retrain jobs.

    Several servers on one store may each have one: a model has one job at a time.
    """

    def __init__(
        self,
        models: ModelRegistry,
        examples: ExamplesStore,
        runner: JobRunner,
        first_versions: FirstVersions,
        *,
        every_s: float,
        min_new: int,
        gate: GateMode,
    ) -> None:
        """Retrain each model every ``every_s``, after ``min_new`` labels since its last gate."""
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._runner = runner
        self._first_versions = first_versions
        self._every_s = every_s
        self.look_every_s = min(_LOOK_EVERY_S, every_s / _LOOKS_PER_PERIOD)
        self._min_new = min_new
        self._gate = gate

    async def look(self) -> None:
        """Start the jobs that are due."""
        await do_all(partial(self._start_due, name) for name in self._models.names_held())

    async def _start_due(self, name: str) -> None:
        try:
            if await self._threads.database.run(self._is_due, name):
                await self._first_versions.check_enough(self._models.held(name))
                await self._runner.start(name, {"gate": self._gate.value}, "schedule")
        except PreconditionError as error:  # somebody else was faster, or there is too little for a first version
            log.info("%s", error)

    def _is_due(self, model: str) -> bool:
        newest = partial(self._examples.jobs.list, model, most=1)
        now = datetime.now(UTC)
        if any((now - datetime.fromisoformat(job.created_at)).total_seconds() < self._every_s for job in newest()):
            return False
        judged = [job.created_at for state in (JobState.SUCCEEDED, JobState.REFUSED) for job in newest(state)]
        return self._examples.labels.labelled_since(model, max(judged, default="")) >= self._min_new
