"""Prometheus metrics of the server, in base units.

Of a model's labels so many have series of their own, the rest are counted together (`OTHER`). A model that is gone
takes its series along.

What a request touches is looked up once and kept (`Metrics.of`, `Metrics.finished`). What can be read when Prometheus
asks is read then, and costs a request nothing: answers are counted in `serving.telemetry.statistics`.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

from regraft.stores.jobs import JobState
from regraft.stores.labels import AddOutcome
from regraft.stores.unlabelled.pool import PoolOutcome
from serving.telemetry.statistics import SECONDS, Distribution, Statistics

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

MetricT = TypeVar("MetricT", bound=MetricWrapperBase)

_SAMPLES_AT_ONCE: Final = 100
"""Of a scrape: less than a millisecond of the interpreter's time."""
_PAUSE_S: Final = 0.0001
_SIZES: Final = (1, 2, 4, 8, 16, 32)
_JOB_SECONDS: Final = (1, 2.5, 5, 10, 30, 60, 150, 300, 600, 1800, 3600)
_TRAIN_SECONDS: Final = (10, 30, 60, 300, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)


@dataclass(frozen=True)
class MetricFamily:
    """A metric that is read at every scrape.

    Attributes:
        values: by the values of its labels.
        kind: ``unknown`` leaves the name as it is, where a counter's would get ``_total``.
    """

    name: str
    documentation: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], float]
    kind: Literal["gauge", "unknown"] = "gauge"


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self, most_labels: int = 100) -> None:
        """Create all metrics, so that the first scrape has each.

        Args:
            most_labels: of a model that have series of their own: the first that it gives.
        """
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the package leaves it untyped; half of all series
        registry = self.registry = _PatientRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        self._by_model: list[MetricWrapperBase] = []

        def by_model(metric: MetricT, labels: tuple[str, ...]) -> MetricT:
            if "model" in labels:
                self._by_model.append(metric)
            return metric

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return by_model(Counter(f"regraft_{name}", documentation, labels, registry=registry), labels)

        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return by_model(Gauge(f"regraft_{name}", documentation, labels, registry=registry), labels)

        def histogram(name: str, documentation: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
            metric = Histogram(f"regraft_{name}", documentation, labels, buckets=buckets, registry=registry)
            return by_model(metric, labels)

        self.requests = counter("requests", "Finished RPCs.", "method", "code", "model")
        self.refused_seconds = histogram(
            "refused_seconds", "Time of an RPC that was refused because the server was full.", buckets=SECONDS
        )
        self.batch_size = histogram("batch_size", "Pictures in one run of the network.", buckets=_SIZES)
        self.in_flight = gauge("in_flight", "Classifications that hold a permit.")
        self.in_flight_limit = gauge("in_flight_limit", "Permits that there are.")
        self.queue_depth = gauge("queue_depth", "Pictures that wait for a lane.")
        self.shed = counter("shed", "Classifications refused because the server was full.")
        self.expired = counter("expired", "Classifications dropped because their deadline passed while they waited.")
        self.served_version = gauge("served_version", "Version that answers for a model; 0 while none does.", "model")
        self.champion_version = gauge("champion_version", "Version that the store says should answer.", "model")
        self.provider = gauge(
            "provider", "1 for the execution provider that a model really runs on.", "model", "provider"
        )
        self.provider_fallback = gauge(
            "provider_fallback", "1 where a model runs on the CPU because CUDA does not work.", "model"
        )
        self.swaps = counter(
            "swaps", "Versions that went live, by kind: head (same session) or session.", "model", "kind"
        )
        self.load_failures = counter("load_failures", "Versions that could not be loaded.", "model")
        self.examples = counter("examples", "Labelled pictures received, by outcome.", "outcome")
        for outcome in AddOutcome:
            self.examples.labels(outcome.value)
        self.examples_stored = gauge("examples_stored", "Examples that a model has, by state.", "model", "state")
        self.unlabelled = counter("unlabelled", "Pictures without labels received, by outcome.", "outcome")
        for each in PoolOutcome:
            self.unlabelled.labels(each.value)
        self.unlabelled_stored = gauge(
            "unlabelled_stored", "Pictures without labels that a model has, by state.", "model", "state"
        )
        self.kept_requests = counter("kept_requests", "Served pictures drawn to be kept, by outcome.", "outcome")
        self.thumbnails = counter("thumbnails", "Thumbnails asked for: cached, made, or failed.", "outcome")
        self.retrain_jobs = counter(
            "retrain_jobs", "Finished retrain and training jobs, by outcome.", "model", "outcome"
        )
        self.retrain_seconds, self.train_seconds = (
            histogram(f"{kind}_seconds", f"Time of a {kind} job, waiting included.", "model", buckets=buckets)
            for kind, buckets in (("retrain", _JOB_SECONDS), ("train", _TRAIN_SECONDS))
        )
        self.gate_accuracy = gauge(
            "gate_accuracy", "Holdout accuracy that the gate saw last, of champion and challenger.", "model", "head"
        )
        self.shadow_version = gauge("shadow_version", "Version that judges beside the champion; 0 while none.", "model")
        self.shadow_pictures = counter("shadow_pictures", "Pictures that a shadow judged.", "model")
        self.shadow_agreed = counter("shadow_agreed", "Pictures that a shadow gave the champion's label.", "model")
        self.shadow_flips = counter(
            "shadow_flips", "Pictures that a shadow gave another label than the champion's, by that.", "model", "label"
        )
        self.shadow_confidence_shift = gauge(
            "shadow_confidence_shift", "Mean probability of the shadow's label less that of the champion's.", "model"
        )
        self.baking_version = gauge("baking_version", "New champion that is on trial; 0 while none.", "model")
        self.baking_rollbacks = counter("baking_rollbacks", "New champions that failed their trial here.", "model")
        self.background_failures = counter(
            "background_failures", "Failures of background tasks, which begin again after a pause.", "task"
        )
        self._most_labels = most_labels
        self._models: dict[str, Statistics] = {}
        registry.register(_Answers(self._models))
        self._finished = cache(self.requests.labels)

    def of(self, model: str) -> Statistics:
        """Return the statistics of a model, begun at the first use."""
        statistics = self._models.get(model)
        if statistics is None:
            statistics = self._models[model] = Statistics(self._most_labels)
            self._begin(model)
        return statistics

    def _begin(self, model: str) -> None:
        """Create rare series of a model at 0, before their first count."""
        for state in JobState:
            if state.is_final:
                self.retrain_jobs.labels(model, state.value.lower())
        for kind in ("head", "session"):
            self.swaps.labels(model, kind)
        self.load_failures.labels(model)
        self.retrain_seconds.labels(model)

    def forget(self, model: str) -> None:
        """Drop all series of a model that is gone."""
        self._models.pop(model, None)
        self._finished.cache_clear()
        for metric in self._by_model:
            metric.remove_by_labels({"model": model})

    def finished(self, method: str, code: str, model: str) -> None:
        """Count an RPC that ended."""
        self._finished(method, code, model).inc()

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Show the queue's depth, read at every scrape."""
        self.queue_depth.set_function(depth)

    def watch_in_flight(self, count: Callable[[], int], limit: int) -> None:
        """Show the permits taken, read at every scrape, and their limit."""
        self.in_flight.set_function(count)
        self.in_flight_limit.set(limit)

    def watch(self, read: Callable[[], Iterable[MetricFamily]]) -> None:
        """Show the families of ``read``, called at every scrape in its thread."""
        self.registry.register(_Reader(read))

    def application(self) -> "WSGIApplication":
        """Return the WSGI application for Prometheus."""
        return make_wsgi_app(self.registry)

    def show_provider(self, model: str, provider: str, *, is_fallback: bool) -> None:
        """Show the one provider that ``model`` runs on."""
        for name in ("cuda", "cpu"):
            self.provider.labels(model, name).set(name == provider)
        self.provider_fallback.labels(model).set(is_fallback)


class _Answers:
    """A collector of the models' statistics, sample by sample."""

    def __init__(self, models: Mapping[str, Statistics]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        for name, documentation, kind, samples in (
            ("stage_seconds", "Time of a picture, by stage, and in all.", "histogram", _stages),
            ("confidence", "Probability of the label that each picture was given.", "histogram", _confidence),
            ("pictures", "Pictures, by the label that they were given.", "counter", _pictures),
            ("novel", "Pictures beyond the model's novelty threshold.", "counter", _novel),
        ):
            metric = Metric(f"regraft_{name}", documentation, kind)
            metric.samples = self._samples(metric.name, samples)  # type: ignore[assignment]  # it is only ever gone through
            yield metric

    def _samples(self, name: str, samples: "Callable[[str, str, Statistics], Iterator[Sample]]") -> Iterator[Sample]:
        for model, statistics in list(self._models.items()):  # another thread goes on counting
            yield from samples(name, model, statistics)


def _stages(name: str, model: str, statistics: Statistics) -> Iterator[Sample]:
    for stage, distribution in statistics.stages.items():
        yield from _distribution(name, {"model": model, "stage": stage}, distribution)


def _confidence(name: str, model: str, statistics: Statistics) -> Iterator[Sample]:
    return _distribution(name, {"model": model}, statistics.confidence)


def _pictures(name: str, model: str, statistics: Statistics) -> Iterator[Sample]:
    for label, count in list(statistics.labels.items()):
        yield Sample(f"{name}_total", {"model": model, "label": label}, count)


def _novel(name: str, model: str, statistics: Statistics) -> Iterator[Sample]:
    yield Sample(f"{name}_total", {"model": model}, statistics.novel)


def _distribution(name: str, labels: dict[str, str], distribution: Distribution) -> Iterator[Sample]:
    """Yield a distribution's samples: cumulative buckets, count and sum."""
    up_to = 0
    for bucket, (end, count) in enumerate(zip((*distribution.bounds, math.inf), distribution.counts, strict=True)):
        up_to += count
        seen = distribution.exemplars.get(bucket)
        exemplar = Exemplar({"trace_id": seen.trace_id}, seen.value, seen.at_s) if seen else None
        le = floatToGoString(end)  # type: ignore[no-untyped-call]  # the package leaves it untyped
        yield Sample(f"{name}_bucket", {**labels, "le": le}, up_to, None, exemplar)
    yield Sample(f"{name}_count", labels, up_to)
    yield Sample(f"{name}_sum", labels, distribution.sum)


class _PatientRegistry(CollectorRegistry):
    """A registry that pauses a scrape for threads that answer requests."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = _with_pauses(metric.samples)  # type: ignore[assignment]  # it is only ever gone through
            yield metric


def _with_pauses(samples: Iterable[Sample]) -> Iterator[Sample]:
    for number, sample in enumerate(samples):
        if number % _SAMPLES_AT_ONCE == _SAMPLES_AT_ONCE - 1:
            time.sleep(_PAUSE_S)
        yield sample


class _Reader:
    """A collector of families."""

    def __init__(self, read: Callable[[], Iterable[MetricFamily]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        for family in self._read():
            metric = Metric(family.name, family.documentation, family.kind)
            for values, value in family.values.items():
                metric.add_sample(family.name, dict(zip(family.labels, values, strict=True)), value)
            yield metric
