"""Metrics under Triton's names, for dashboards made for Triton: ``--triton-metrics``.

Names and units are those of Triton's documentation (docs/user_guide/metrics.md): counters without ``_total``, times in
microseconds. They are read from `serving.telemetry.statistics`, as Prometheus' own are.
"""

from collections.abc import Callable, Iterator
from typing import Final

from serving.inference.registry import ModelRegistry
from serving.telemetry.metrics import MetricFamily, Metrics
from serving.telemetry.statistics import Statistics

_LABELS: Final = ("model", "version")

_COUNTERS: Final[dict[str, tuple[str, Callable[[Statistics], int]]]] = {
    "request_success": ("Inference requests that were answered.", lambda of: of.success.count),
    "request_failure": ("Inference requests that failed.", lambda of: of.fail.count),
    "count": ("Pictures classified.", lambda of: of.pictures),
    "exec_count": ("Runs of the network.", lambda of: round(of.runs)),
    "request_duration_us": ("Time of answered requests, microseconds.", lambda of: of.success.sum_ns // 1000),
    "queue_duration_us": ("Time in the queue, microseconds.", lambda of: of.stages["queue"].sum_ns // 1000),
    "compute_input_duration_us": ("Time of decoding, microseconds.", lambda of: of.stages["decode"].sum_ns // 1000),
    "compute_infer_duration_us": ("Time of running the network, us.", lambda of: of.stages["inference"].sum_ns // 1000),
    "compute_output_duration_us": ("Always 0: it is not timed.", lambda _of: 0),
}


def triton_metrics(models: ModelRegistry, metrics: Metrics) -> Iterator[MetricFamily]:
    """Yield the metrics of every model that answers, by its present version."""
    served = [models.get(name) for name in models.names()]
    keys: list[tuple[str, ...]] = [(model.name, str(model.version)) for model in served]
    for name, (documentation, read) in _COUNTERS.items():
        values = {key: read(metrics.of(key[0])) for key in keys}
        yield MetricFamily(f"nv_inference_{name}", documentation, _LABELS, values, "unknown")
    waiting = {key: model.backbone.depth for key, model in zip(keys, served, strict=True)}
    yield MetricFamily("nv_inference_pending_request_count", "Pictures that wait for a lane.", _LABELS, waiting)
