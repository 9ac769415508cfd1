"""Automatic rollback of a new champion that fails its trial (`serving.rollout.trial`).

Of several servers on one store one goes back: under the store's lock, and only while the champion is still the one on
trial.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from regraft.errors import NotFoundError, PreconditionError, RegraftError
from serving.inference.registry import ModelRegistry
from serving.rollout.observer import Observer
from serving.rollout.trial import AUTHOR, Trial, quality_of, rollback_reasons, trial_of
from serving.supervisor import do_all
from serving.telemetry.metrics import Metrics

log = logging.getLogger("regraft.baking")


@dataclass(frozen=True)
class RunningTrial:
    """A trial that is not over yet."""

    trial: Trial
    until: datetime

    @property
    def remaining_s(self) -> float:
        """Seconds until it has passed."""
        return max(0.0, (self.until - datetime.now(UTC)).total_seconds())


class AutomaticRollback:
    """The trials of a server's champions.

    Use it from one event loop, and call `look` every so often.
    """

    def __init__(
        self,
        models: ModelRegistry,
        observer: Observer,
        metrics: Metrics,
        on_rollback: Callable[[], Awaitable[None]],
        *,
        bake_s: float,
    ) -> None:
        """Put new champions on trial.

        Args:
            models: that answer.
            observer: of their answers.
            metrics: show who is on trial, and count who failed.
            on_rollback: awaited after one.
            bake_s: seconds of a trial.
        """
        self._models = models
        self._threads = models.threads
        self._observer = observer
        self._metrics = metrics
        self._on_rollback = on_rollback
        self._duration = timedelta(seconds=bake_s)
        self._trials: dict[str, RunningTrial] = {}
        self._stuck: set[tuple[str, Trial]] = set()

    def trial(self, name: str) -> RunningTrial | None:
        """Return the trial of a model's champion, or None."""
        return self._trials.get(name)

    async def look(self) -> None:
        """Judge the champions on trial, each whatever becomes of the others."""
        await do_all(partial(self._look, name) for name in self._models.names())

    async def _look(self, name: str) -> None:
        trial = trial_of(self._models.stored.get(name).history)
        served = self._models.get(name)
        last = self._trials.pop(name, None)
        self._metrics.baking_rollbacks.labels(name)  # 0 is there before 1, or no rule would see it rise
        if trial and trial.version == served.version and datetime.now(UTC) < trial.at + self._duration:
            self._trials[name] = RunningTrial(trial, trial.at + self._duration)
            if (name, trial) not in self._stuck:
                await self._judge(name, trial)
        elif trial and last and last.trial == trial:
            log.info("model %s: version %d has passed its trial", name, trial.version)
        self._metrics.baking_version.labels(name).set(trial.version if trial and name in self._trials else 0)

    async def _judge(self, name: str, trial: Trial) -> None:
        recent, before = self._observer.recent_answers(name), self._observer.predecessor(name)
        if recent is None or recent.served.version != trial.version:
            return
        if before is not None and before.version != trial.previous:
            before = None
        if reasons := rollback_reasons(await self._threads.pictures.run(quality_of, recent), before):
            await self._go_back(name, trial, f"baking: {'; '.join(reasons)}")

    async def _go_back(self, name: str, trial: Trial, why: str) -> None:
        log.error("model %s: version %d fails its trial: %s", name, trial.version, why)
        try:
            await self._models.move(name, None, who=AUTHOR, why=why, expected=trial.version)
        except (PreconditionError, NotFoundError) as error:
            # Another server was faster, somebody promoted, or there is nothing to go back to that answers.
            self._stuck.add((name, trial))
            log.warning("model %s: does not go back: %s", name, error)
        except RegraftError as error:
            log.warning("model %s: cannot go back yet: %s", name, error)
        else:
            self._trials.pop(name, None)
            self._metrics.baking_rollbacks.labels(name).inc()
            await self._on_rollback()
