"""Every Prometheus metric of the server, in base units, with labels of few values.

Of a model's labels so many have series of their own, the rest are counted together (`OTHER`). A model that is gone
takes its series along.

What a request touches is looked up once and kept (`Metrics.of`, `Metrics.finished`): an observation costs under a
microsecond. What can be read when Prometheus asks is read then, and costs a request nothing.
"""

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
from prometheus_client.samples import Sample

from regraft.examples import AddOutcome
from regraft.retrain_jobs import JobState

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

MetricT = TypeVar("MetricT", bound=MetricWrapperBase)

OTHER: Final = "other"
"""What all labels are counted as that came after so many others; a label that is called so, too."""
STAGES: Final = ("decode", "queue", "inference", "total")
_SAMPLES_AT_ONCE: Final = 100
"""Of a scrape: less than a millisecond of the interpreter's time."""
_PAUSE_S: Final = 0.0001
_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES: Final = (1, 2, 4, 8, 16, 32)
_SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_JOB_SECONDS: Final = (1, 2.5, 5, 10, 30, 60, 150, 300, 600, 1800, 3600)


@dataclass(frozen=True)
class Family:
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
        """Create them all, so that each is there from the first scrape on.

        Args:
            most_labels: of a model that have series of their own: the first that it gives.
        """
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the package leaves it untyped; half of all series
        registry = self.registry = _PatientRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        self._by_model: list[MetricWrapperBase] = []

        def known(metric: MetricT, labels: tuple[str, ...]) -> MetricT:
            if "model" in labels:
                self._by_model.append(metric)
            return metric

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return known(Counter(f"regraft_{name}", documentation, labels, registry=registry), labels)

        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return known(Gauge(f"regraft_{name}", documentation, labels, registry=registry), labels)

        def histogram(name: str, documentation: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
            metric = Histogram(f"regraft_{name}", documentation, labels, buckets=buckets, registry=registry)
            return known(metric, labels)

        self.requests = counter("requests", "Finished RPCs.", "method", "code", "model")
        self.refused_seconds = histogram(
            "refused_seconds", "Time of an RPC that was refused because the server was full.", buckets=_SECONDS
        )
        self.stage_seconds = histogram(
            "stage_seconds", "Time of a picture, by stage, and in all.", "model", "stage", buckets=_SECONDS
        )
        self.confidence = histogram(
            "confidence", "Probability of the label that each picture was given.", "model", buckets=_SHARES
        )
        self.pictures = counter("pictures", "Pictures, by the label that they were given.", "model", "label")
        self.novel = counter("novel", "Pictures beyond the model's novelty threshold.", "model")
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
        self.kept_requests = counter("kept_requests", "Served pictures drawn to be kept, by outcome.", "outcome")
        self.retrain_jobs = counter("retrain_jobs", "Finished retrain jobs, by outcome.", "model", "outcome")
        self.retrain_seconds = histogram(
            "retrain_seconds", "Time of a retrain job, waiting included.", "model", buckets=_JOB_SECONDS
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
        self._models: dict[str, ModelMetrics] = {}
        self._finished = cache(self.requests.labels)

    def of(self, model: str) -> "ModelMetrics":
        """Return what a model's pictures are counted in."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = ModelMetrics(self, model, self._most_labels)
        return found

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
        """Read the queue's depth from ``depth`` at every scrape."""
        self.queue_depth.set_function(depth)

    def watch_in_flight(self, count: Callable[[], int], limit: int) -> None:
        """Read how many permits of ``limit`` are taken from ``count`` at every scrape."""
        self.in_flight.set_function(count)
        self.in_flight_limit.set(limit)

    def watch(self, read: Callable[[], Iterable[Family]]) -> None:
        """Show what ``read`` returns, at every scrape, in the thread that serves it."""
        self.registry.register(_Reader(read))

    def application(self) -> "WSGIApplication":
        """Return what answers Prometheus over HTTP."""
        return make_wsgi_app(self.registry)

    def show_provider(self, model: str, provider: str, *, is_fallback: bool) -> None:
        """Show the one provider that ``model`` runs on."""
        for name in ("cuda", "cpu"):
            self.provider.labels(model, name).set(name == provider)
        self.provider_fallback.labels(model).set(is_fallback)


class ModelMetrics:
    """What each picture that a model answers is counted in; see `Metrics.of`."""

    def __init__(self, metrics: Metrics, model: str, most_labels: int) -> None:
        """Look up the model's own in ``metrics``; what is rare begins at 0, or its first time would be no increase."""
        for state in JobState:
            if state.is_final:
                metrics.retrain_jobs.labels(model, state.value.lower())
        for kind in ("head", "session"):
            metrics.swaps.labels(model, kind)
        metrics.load_failures.labels(model)
        metrics.retrain_seconds.labels(model)
        *self._stages, (_, self._total) = [(stage, metrics.stage_seconds.labels(model, stage)) for stage in STAGES]
        self._confidence = metrics.confidence.labels(model)
        self._novel = metrics.novel.labels(model)
        self._most_labels = most_labels
        self._shown: dict[str, str] = {}
        self._pictures = cache(lambda label: metrics.pictures.labels(model, label))

    def shown(self, label: str) -> str:
        """Return what a label is counted as: itself, or `OTHER` where it came after too many others."""
        found = self._shown.get(label)
        if found is None:
            found = self._shown[label] = label if len(self._shown) < self._most_labels else OTHER
        return found

    def answered(
        self, seconds: Mapping[str, float], label: str, confidence: float, *, is_novel: bool, trace_id: str = ""
    ) -> None:
        """Count a picture, by the seconds of its stages and by what it was found to be.

        The trace, if there is one, becomes the exemplar of its total time.
        """
        for stage, histogram in self._stages:
            histogram.observe(seconds[stage])
        self._total.observe(seconds["total"], {"trace_id": trace_id} if trace_id else None)
        self._confidence.observe(confidence)
        self._pictures(self.shown(label)).inc()
        if is_novel:
            self._novel.inc()


class _PatientRegistry(CollectorRegistry):
    """Lets the threads that answer requests in between the samples of a scrape: else each waits for milliseconds."""

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
    """A collector of prometheus_client."""

    def __init__(self, read: Callable[[], Iterable[Family]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        for family in self._read():
            metric = Metric(family.name, family.documentation, family.kind)
            for values, value in family.values.items():
                metric.add_sample(family.name, dict(zip(family.labels, values, strict=True)), value)
            yield metric
