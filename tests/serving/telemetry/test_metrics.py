from resource import RUSAGE_THREAD, getrusage

import pytest
from prometheus_client import generate_latest

from serving.telemetry.metrics import MetricFamily, Metrics
from serving.telemetry.statistics import OTHER
from tests.serving.metric_samples import value_of

FAMILIES = {
    "regraft_requests": "counter",
    "regraft_stage_seconds": "histogram",
    "regraft_confidence": "histogram",
    "regraft_pictures": "counter",
    "regraft_novel": "counter",
    "regraft_batch_size": "histogram",
    "regraft_in_flight": "gauge",
    "regraft_in_flight_limit": "gauge",
    "regraft_queue_depth": "gauge",
    "regraft_shed": "counter",
    "regraft_expired": "counter",
    "regraft_served_version": "gauge",
    "regraft_champion_version": "gauge",
    "regraft_provider": "gauge",
    "regraft_provider_fallback": "gauge",
    "regraft_swaps": "counter",
    "regraft_load_failures": "counter",
    "regraft_examples": "counter",
    "regraft_examples_stored": "gauge",
    "regraft_unlabelled": "counter",
    "regraft_unlabelled_stored": "gauge",
    "regraft_kept_requests": "counter",
    "regraft_shadow_version": "gauge",
    "regraft_shadow_pictures": "counter",
    "regraft_shadow_agreed": "counter",
    "regraft_shadow_flips": "counter",
    "regraft_shadow_confidence_shift": "gauge",
    "regraft_retrain_jobs": "counter",
    "regraft_retrain_seconds": "histogram",
    "regraft_gate_accuracy": "gauge",
}
SECONDS = {"decode": 0.002, "queue": 0.0, "inference": 0.009, "total": 0.012}


def test_every_metric_is_there_from_the_first_scrape_on_with_help_and_its_type() -> None:
    families = {family.name: family for family in Metrics().registry.collect() if family.name.startswith("regraft_")}

    assert FAMILIES.items() <= {name: family.type for name, family in families.items()}.items()
    assert all(family.documentation.endswith(".") for family in families.values())


@pytest.mark.parametrize("stage", ["decode", "queue", "inference", "total"])
def test_the_time_of_every_stage_falls_into_the_buckets_of_its_model(stage: str) -> None:
    metrics = Metrics()
    metrics.of("m").answered(SECONDS, "red", 0.97, is_novel=False)

    def bucket(le: str) -> float | None:
        labels = {"model": "m", "stage": stage, "le": le}
        return metrics.registry.get_sample_value("regraft_stage_seconds_bucket", labels)

    assert bucket("+Inf") == 1
    assert bucket("0.0005") == (1 if stage == "queue" else 0)
    assert bucket("10.0") == 1


def test_a_picture_is_counted_by_its_label_its_confidence_and_whether_it_is_novel() -> None:
    metrics = Metrics()
    metrics.of("m").answered(SECONDS, "red", 0.97, is_novel=False)
    metrics.of("m").answered(SECONDS, "red", 0.31, is_novel=True)
    metrics.of("other").answered(SECONDS, "red", 0.5, is_novel=True)

    value = metrics.registry.get_sample_value
    assert value("regraft_pictures_total", {"model": "m", "label": "red"}) == 2
    assert value("regraft_confidence_bucket", {"model": "m", "le": "0.4"}) == 1
    assert value("regraft_confidence_count", {"model": "m"}) == 2
    assert value("regraft_novel_total", {"model": "m"}) == 1


def test_no_label_beyond_so_many_has_a_series_of_its_own() -> None:
    metrics = Metrics(most_labels=2)
    for label in ("red", "blue", "green", "grey", "red", "green"):
        metrics.of("m").answered(SECONDS, label, 0.9, is_novel=False)
    metrics.of("n").answered(SECONDS, "grey", 0.9, is_novel=False)

    assert pictures_by_label(metrics, "m") == {"red": 2, "blue": 1, OTHER: 3}
    assert pictures_by_label(metrics, "n") == {"grey": 1}
    assert [metrics.of("m").shown(label) for label in ("red", "grey")] == ["red", OTHER]


def pictures_by_label(metrics: Metrics, model: str) -> dict[str, float]:
    (family,) = (family for family in metrics.registry.collect() if family.name == "regraft_pictures")
    return {sample.labels["label"]: sample.value for sample in family.samples if sample.labels["model"] == model}


def test_fifty_models_of_a_thousand_labels_have_so_many_series() -> None:
    """Bound the series, which a scrape's cost depends on (`benchmarks.heads` measures it)."""
    metrics = Metrics()
    for model in range(50):
        for label in range(1000):
            metrics.of(str(model)).answered(SECONDS, str(label), 0.9, is_novel=True)

    lines = generate_latest(metrics.registry).decode().splitlines()
    assert not any("_created" in line for line in lines)
    assert len([line for line in lines if line.startswith("regraft_pictures_total")]) == 50 * 101
    assert len(lines) < 12_000


def test_a_scrape_gives_the_interpreter_away_again_and_again() -> None:
    """`benchmarks.heads` measures how late an event loop is meanwhile."""
    metrics = Metrics()
    for label in range(100):
        for model in range(20):
            metrics.of(str(model)).answered(SECONDS, str(label), 0.9, is_novel=True)

    before = getrusage(RUSAGE_THREAD).ru_nvcsw  # how often the thread went to sleep by itself
    lines = generate_latest(metrics.registry).decode().splitlines()

    assert len(lines) > 3000
    assert getrusage(RUSAGE_THREAD).ru_nvcsw - before >= 20


def test_a_model_that_is_gone_takes_its_series_along_and_comes_back_at_zero() -> None:
    metrics = Metrics()
    for model in ("m", "n"):
        metrics.of(model).answered(SECONDS, "red", 0.9, is_novel=True)
        metrics.finished("Classify", "OK", model)
        metrics.show_provider(model, "cpu", is_fallback=False)

    metrics.forget("m")

    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert {sample.labels["model"] for sample in samples if "model" in sample.labels} == {"n"}
    metrics.of("m").answered(SECONDS, "red", 0.9, is_novel=True)
    metrics.finished("Classify", "OK", "m")
    assert pictures_by_label(metrics, "m") == {"red": 1}
    assert value_of(metrics.registry, "regraft_requests_total", {"model": "m"}) == 1


def test_the_depth_of_the_queue_is_read_at_every_scrape() -> None:
    metrics = Metrics()
    depth = [3]
    metrics.watch_queue(lambda: depth[0])

    assert metrics.registry.get_sample_value("regraft_queue_depth") == 3
    depth[0] = 5
    assert metrics.registry.get_sample_value("regraft_queue_depth") == 5


@pytest.mark.parametrize("kind", ["gauge", "unknown"])
def test_a_family_that_is_watched_is_read_at_every_scrape_and_keeps_its_name(kind: str) -> None:
    metrics = Metrics()
    values = {("a", "1"): 3.0}
    metrics.watch(lambda: [MetricFamily("kept", "As it is.", ("x", "y"), values, kind)])  # type: ignore[arg-type]  # both are kinds

    values["b", "2"] = 4.0
    assert metrics.registry.get_sample_value("kept", {"x": "a", "y": "1"}) == 3
    assert metrics.registry.get_sample_value("kept", {"x": "b", "y": "2"}) == 4


@pytest.mark.parametrize(("provider", "other"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_model_is_shown_on_one_provider_only(provider: str, other: str) -> None:
    metrics = Metrics()
    metrics.show_provider("m", other, is_fallback=False)
    metrics.show_provider("m", provider, is_fallback=provider == "cpu")

    shown = {
        name: metrics.registry.get_sample_value("regraft_provider", {"model": "m", "provider": name})
        for name in (provider, other)
    }
    assert shown == {provider: 1, other: 0}
    assert metrics.registry.get_sample_value("regraft_provider_fallback", {"model": "m"}) == (provider == "cpu")


def test_the_metrics_of_two_servers_in_one_process_are_apart() -> None:
    first, second = Metrics(), Metrics()
    first.finished("Classify", "OK", "m")

    labels = {"method": "Classify", "code": "OK", "model": "m"}
    assert first.registry.get_sample_value("regraft_requests_total", labels) == 1
    assert second.registry.get_sample_value("regraft_requests_total", labels) is None
