"""Looks at answers after they were sent: drift, and what a shadow would have said.

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
from serving.inference.registry import ModelRegistry, ServedModel
from serving.rollout.recent_answers import RecentAnswers
from serving.rollout.shadow import Shadow, ShadowComparison, compare_heads, load_shadow
from serving.rollout.trial import Quality, quality_of
from serving.telemetry.metrics import MetricFamily, Metrics

log = logging.getLogger("regraft.observer")

_MOST: Final = 512


@dataclass(frozen=True)
class ShadowStatus:
    """A shadow as the store has it, and how it does on this server.

    Attributes:
        version: of the shadow.
        champion: the version that it was held against.
        shadow: None where it cannot judge.
        problem: why not, or empty.
    """

    version: int
    champion: ServedModel
    shadow: Shadow | None
    problem: str
    comparison: ShadowComparison


class Observer:
    """A view of the answers: drift and shadows.

    Call `look` every so often. ``record`` and the rest belong to the event loop; what it returns never changes.
    """

    def __init__(
        self,
        models: ModelRegistry,
        metrics: Metrics,
        *,
        window: int,
        window_s: float,
    ) -> None:
        """Look at the answers of ``models``.

        Args:
            models: that answer.
            metrics: show what is found.
            window: answers that drift is told from.
            window_s: the age of the oldest of them.
        """
        self._models = models
        self._threads = models.threads
        self._metrics = metrics
        self._window = window, window_s
        self._recent: list[tuple[ServedModel, Output]] = []
        self._looking = asyncio.Lock()
        self._traffic: dict[str, RecentAnswers] = {}
        self._before: dict[str, Quality] = {}
        self._shadows: dict[str, ShadowStatus] = {}
        metrics.watch(lambda: _families(list(self._traffic.values())))

    def record(self, served: ServedModel, output: Output) -> None:
        """Hear of an answer. It is on the way of every request."""
        served.answers += 1
        if len(self._recent) < _MOST:
            self._recent.append((served, output))

    def traffic(self, name: str) -> RecentAnswers | None:
        """Return what a model answered lately, or None before it was looked at."""
        return self._traffic.get(name)

    def before(self, name: str) -> Quality | None:
        """Return how the version did that answered here before this one, or None where there was none."""
        return self._before.get(name)

    def shadow(self, name: str) -> ShadowStatus | None:
        """Return the shadow of a model, or None."""
        return self._shadows.get(name)

    async def check_shadow(self, name: str, version: int) -> None:
        """Refuse a version that cannot shadow the champion; errors as `serving.rollout.shadow.load_shadow`.

        Raises:
            PreconditionError: or nothing answers for the model.
        """
        champion = self._models.get(name)
        await self._threads.store.run(load_shadow, self._models.store, version, champion)

    async def look(self) -> None:
        """Look at the answers since the last time, and follow the store's shadows."""
        async with self._looking:
            recent, self._recent = self._recent, []
            served = {name: self._models.get(name) for name in self._models.names()}
            await self._threads.store.run(self._look, recent, served)

    def _look(self, recent: list[tuple[ServedModel, Output]], served: Mapping[str, ServedModel]) -> None:
        for known in (self._traffic, self._before, self._shadows):
            for gone in known.keys() - served.keys():
                del known[gone]
        outputs_of: defaultdict[ServedModel, list[Output]] = defaultdict(list)
        for version, output in recent:
            outputs_of[version].append(output)
        for name, model in served.items():
            outputs = outputs_of[model]
            traffic = self._traffic.get(name)
            if traffic is None or traffic.served is not model:
                if traffic is not None:
                    self._before[name] = quality_of(traffic)  # figures alone: a session must not outlive its version
                traffic = RecentAnswers.begin(model, *self._window)
            self._traffic[name] = traffic.after(outputs, time.monotonic())
            self._follow_shadow(model)
            if outputs:
                self._judge_beside(model, outputs)

    def _follow_shadow(self, champion: ServedModel) -> None:
        """Bring the shadow of a model in line with the store; one that cannot judge is tried once for a champion."""
        name, store = champion.name, self._models.store
        version = self._models.stored.get(name).shadow
        if version == champion.version:  # it has just become champion
            version = None
        known = self._shadows.get(name)
        if version is None:
            self._shadows.pop(name, None)
        elif known is None or known.version != version or known.champion is not champion:
            self._shadows[name] = _loaded(store, version, champion)
        self._metrics.shadow_version.labels(name).set(version or 0)

    def _judge_beside(self, champion: ServedModel, outputs: list[Output]) -> None:
        shadowed = self._shadows.get(champion.name)
        if shadowed is None or shadowed.shadow is None:
            return
        found = compare_heads(
            champion.card.labels,
            np.stack([output.probabilities for output in outputs]),
            shadowed.shadow,
            np.stack([output.embedding for output in outputs]),
        )
        if not found.images:
            return
        comparison = shadowed.comparison.plus(found)
        self._shadows[champion.name] = ShadowStatus(shadowed.version, champion, shadowed.shadow, "", comparison)
        metrics, name = self._metrics, champion.name
        metrics.shadow_pictures.labels(name).inc(found.images)
        metrics.shadow_agreed.labels(name).inc(found.agreed)
        metrics.shadow_confidence_shift.labels(name).set(comparison.confidence_shift / comparison.images)
        for (label, _), count in found.flips.items():
            metrics.shadow_flips.labels(name, metrics.of(name).shown(label)).inc(count)


def _loaded(store: ModelStore, version: int, champion: ServedModel) -> ShadowStatus:
    try:
        shadow, problem = load_shadow(store, version, champion), ""
    except (RegraftError, OSError) as error:
        shadow, problem = None, str(error)
        log.warning("model %s: version %d does not shadow: %s", champion.name, version, error)
    else:
        log.info("model %s: version %d shadows version %d", champion.name, version, champion.version)
    return ShadowStatus(version, champion, shadow, problem, ShadowComparison())


def _families(traffics: Sequence[RecentAnswers]) -> list[MetricFamily]:
    """Return the gauges of drift; a model of which nothing is known has none of those that would say something."""
    kinds = ("distance", "confidence", "label")
    ks: dict[tuple[str, ...], float] = {
        (traffic.served.name, kind): shift.ks
        for traffic in traffics
        for kind, shift in zip(kinds, traffic.largest_shifts, strict=False)
    }
    told = [traffic for traffic in traffics if traffic.shifts]
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
            {(traffic.served.name,): traffic.drift == "drifted" for traffic in told},
        ),
        MetricFamily(
            "regraft_unknown_share",
            "Share of recent pictures beyond the novelty threshold; about 0.05 where nothing drifted.",
            ("model",),
            {(traffic.served.name,): traffic.unknown_share for traffic in traffics if len(traffic.distance)},
        ),
        MetricFamily(
            "regraft_drift_window_pictures",
            "Recent answers that drift is told from.",
            ("model",),
            {(traffic.served.name,): len(traffic.distance) for traffic in traffics},
        ),
    ]
