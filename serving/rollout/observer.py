"""Observation of answers after they were sent: drift and shadows.

A request only leaves its answer in a list, which takes a few hundred nanoseconds. Twice a second a thread looks at what
is there, at 512 answers at most; beyond that it is a sample. What drift there is gets computed when somebody asks.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from regraft.errors import RegraftError
from regraft.stores.models import ModelStore
from serving.inference.engine import Output
from serving.inference.models_in_memory import ServedModel
from serving.inference.registry import ModelRegistry
from serving.rollout.recent_answers import RecentAnswers
from serving.rollout.shadow import Shadow, ShadowComparison, compare_heads, load_shadow
from serving.rollout.trial import Quality, quality_of
from serving.telemetry.metrics import MetricFamily, Metrics

log = logging.getLogger("regraft.observer")

_MAX_UNSEEN: Final = 512


@dataclass(frozen=True)
class ShadowStatus:
    """A shadow of the store, and its comparison on this server.

    Attributes:
        version: of the shadow.
        champion: that it is compared with.
        shadow: None where it cannot judge.
        problem: why not, or empty.
    """

    version: int
    champion: ServedModel
    shadow: Shadow | None
    problem: str
    comparison: ShadowComparison


class Observer:
    """An observer of the answers of all models.

    Use it from one event loop, and call `look` every so often. What it returns never changes.
    """

    def __init__(self, models: ModelRegistry, metrics: Metrics, *, window: int, window_s: float) -> None:
        """Observe the answers of ``models``.

        Args:
            models: that answer.
            metrics: show drift and shadows.
            window: answers that drift is computed from.
            window_s: the age of the oldest of them.
        """
        self._models = models
        self._threads = models.threads
        self._metrics = metrics
        self._window = window, window_s
        self._unseen: list[tuple[ServedModel, Output]] = []
        self._looking = asyncio.Lock()
        self._recent: dict[str, RecentAnswers] = {}
        self._predecessors: dict[str, Quality] = {}
        self._shadows: dict[str, ShadowStatus] = {}
        metrics.watch(lambda: _drift_metrics(list(self._recent.values())))

    def record(self, served: ServedModel, output: Output) -> None:
        """Note an answer. It is on the way of every request."""
        served.answers += 1
        if len(self._unseen) < _MAX_UNSEEN:
            self._unseen.append((served, output))

    def recent_answers(self, name: str) -> RecentAnswers | None:
        """Return the recent answers of a model, or None before the first look."""
        return self._recent.get(name)

    def predecessor(self, name: str) -> Quality | None:
        """Return the quality of the version that answered here before, or None."""
        return self._predecessors.get(name)

    def shadow(self, name: str) -> ShadowStatus | None:
        """Return the shadow of a model, or None."""
        return self._shadows.get(name)

    async def check_shadow(self, name: str, version: int) -> None:
        """Refuse a version that cannot shadow the champion.

        Raises:
            PreconditionError: it cannot, or nothing answers for the model.
            RegraftError: see `serving.rollout.shadow.load_shadow`.
        """
        champion = self._models.get(name)
        await self._threads.store.run(load_shadow, self._models.store, version, champion)

    async def look(self) -> None:
        """Take up new answers, and follow the store's shadows."""
        async with self._looking:
            unseen, self._unseen = self._unseen, []
            served = {name: self._models.get(name) for name in self._models.names()}
            await self._threads.store.run(self._look, unseen, served)

    def _look(self, unseen: list[tuple[ServedModel, Output]], served: Mapping[str, ServedModel]) -> None:
        for by_model in (self._recent, self._predecessors, self._shadows):
            for removed in by_model.keys() - served.keys():
                del by_model[removed]
        outputs_of: defaultdict[ServedModel, list[Output]] = defaultdict(list)
        for version, output in unseen:
            outputs_of[version].append(output)
        for name, model in served.items():
            outputs = outputs_of[model]
            recent = self._recent.get(name)
            if recent is None or recent.served is not model:
                if recent is not None:  # figures alone: a session must not outlive its version
                    self._predecessors[name] = quality_of(recent)
                recent = RecentAnswers.begin(model, *self._window)
            self._recent[name] = recent.after(outputs, time.monotonic())
            self._follow_shadow(model)
            if outputs:
                self._compare_with_shadow(model, outputs)

    def _follow_shadow(self, champion: ServedModel) -> None:
        """Bring the shadow of a model in line with the store.

        One that cannot judge is tried once for a champion.
        """
        name, store = champion.name, self._models.store
        version = self._models.stored.get(name).shadow
        if version == champion.version:  # it has just become champion
            version = None
        current = self._shadows.get(name)
        if version is None:
            self._shadows.pop(name, None)
        elif current is None or current.version != version or current.champion is not champion:
            self._shadows[name] = _load_status(store, version, champion)
        self._metrics.shadow_version.labels(name).set(version or 0)

    def _compare_with_shadow(self, champion: ServedModel, outputs: list[Output]) -> None:
        status = self._shadows.get(champion.name)
        if status is None or status.shadow is None:
            return
        latest = compare_heads(
            champion.card.labels,
            np.stack([output.probabilities for output in outputs]),
            status.shadow,
            np.stack([output.embedding for output in outputs]),
        )
        if not latest.images:
            return
        total = status.comparison.plus(latest)
        self._shadows[champion.name] = ShadowStatus(status.version, champion, status.shadow, "", total)
        metrics, name = self._metrics, champion.name
        metrics.shadow_pictures.labels(name).inc(latest.images)
        metrics.shadow_agreed.labels(name).inc(latest.agreed)
        metrics.shadow_confidence_shift.labels(name).set(total.confidence_shift / total.images)
        for (label, _), count in latest.flips.items():
            metrics.shadow_flips.labels(name, metrics.of(name).shown(label)).inc(count)


def _load_status(store: ModelStore, version: int, champion: ServedModel) -> ShadowStatus:
    try:
        shadow, problem = load_shadow(store, version, champion), ""
    except (RegraftError, OSError) as error:
        shadow, problem = None, str(error)
        log.warning("model %s: version %d does not shadow: %s", champion.name, version, error)
    else:
        log.info("model %s: version %d shadows version %d", champion.name, version, champion.version)
    return ShadowStatus(version, champion, shadow, problem, ShadowComparison())


def _drift_metrics(models: Sequence[RecentAnswers]) -> list[MetricFamily]:
    """Return the gauges of drift; without answers only that of the window."""
    kinds = ("distance", "confidence", "label")
    ks: dict[tuple[str, ...], float] = {
        (recent.served.name, kind): shift.ks
        for recent in models
        for kind, shift in zip(kinds, recent.largest_shifts, strict=False)
    }
    return [
        MetricFamily(
            "regraft_drift_ks",
            "Largest difference of recent answers from those on the card's reference, 0 to 1: distance to the training "
            "images, confidence, and the label whose probability differs most.",
            ("model", "of"),
            ks,
        ),
        MetricFamily(
            "regraft_drifted",
            "1 where a difference is large and no accident.",
            ("model",),
            {(recent.served.name,): recent.drift == "drifted" for recent in models if recent.shifts},
        ),
        MetricFamily(
            "regraft_unknown_share",
            "Share of recent pictures beyond the novelty threshold; about 0.05 where nothing drifted.",
            ("model",),
            {(recent.served.name,): recent.unknown_share for recent in models if len(recent.distance)},
        ),
        MetricFamily(
            "regraft_drift_window_pictures",
            "Recent answers that drift is told from.",
            ("model",),
            {(recent.served.name,): len(recent.distance) for recent in models},
        ),
    ]
