"""Every Prometheus metric of the server, in base units, with labels of few values."""

from collections.abc import Callable, Mapping
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        """Create them all, so that each is there from the first scrape on."""
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter("regraft_requests", "Finished RPCs.", ["method", "code"], registry=registry)
        self.stage_seconds = Histogram(
            "regraft_stage_seconds",
            "Time of a classification by stage: decode, queue, inference, and total.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "regraft_batch_size", "Pictures in one run of the network.", buckets=_SIZES, registry=registry
        )
        self.in_flight = Gauge("regraft_in_flight", "Classifications that hold a permit.", registry=registry)
        self.queue_depth = Gauge("regraft_queue_depth", "Pictures that wait for a lane.", registry=registry)
        self.served_version = Gauge(
            "regraft_served_version",
            "Version that answers for a model; 0 while none does.",
            ["model"],
            registry=registry,
        )
        self.provider = Gauge(
            "regraft_provider",
            "1 for the execution provider that a model really runs on.",
            ["model", "provider"],
            registry=registry,
        )
        self.swaps = Counter(
            "regraft_swaps",
            "Versions that went live, by kind: head (same session) or session.",
            ["model", "kind"],
            registry=registry,
        )
        self.load_failures = Counter(
            "regraft_load_failures", "Versions that could not be loaded.", ["model"], registry=registry
        )
        self.examples = Counter(
            "regraft_examples", "Labelled pictures received, by outcome.", ["outcome"], registry=registry
        )
        self.retrain_jobs = Counter(
            "regraft_retrain_jobs", "Finished retrain jobs, by outcome.", ["model", "outcome"], registry=registry
        )
        self._stages = {stage: self.stage_seconds.labels(stage) for stage in ("decode", "queue", "inference", "total")}

    def classified(self, seconds: Mapping[str, float]) -> None:
        """Count a picture, by the seconds of its stages."""
        for stage, value in seconds.items():
            self._stages[stage].observe(value)

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Read the queue's depth from ``depth`` at every scrape."""
        self.queue_depth.set_function(depth)

    def show_provider(self, model: str, provider: str) -> None:
        """Show the one provider that ``model`` runs on."""
        for name in ("cuda", "cpu"):
            self.provider.labels(model, name).set(name == provider)

    def start_exporter(self, host: str, port: int) -> WSGIServer:
        """Serve the metrics over HTTP in a thread; ``shutdown`` the server that is returned to stop."""
        server, _thread = start_http_server(port, host, self.registry)
        return server
