import urllib.request

import pytest

from serving.metrics import Metrics

FAMILIES = {
    "regraft_requests": "counter",
    "regraft_stage_seconds": "histogram",
    "regraft_batch_size": "histogram",
    "regraft_in_flight": "gauge",
    "regraft_queue_depth": "gauge",
    "regraft_served_version": "gauge",
    "regraft_provider": "gauge",
    "regraft_swaps": "counter",
    "regraft_load_failures": "counter",
    "regraft_examples": "counter",
    "regraft_retrain_jobs": "counter",
}


def test_every_metric_is_there_from_the_first_scrape_on_with_help_and_its_type() -> None:
    families = {family.name: family for family in Metrics().registry.collect() if family.name.startswith("regraft_")}

    assert {name: family.type for name, family in families.items()} == FAMILIES
    assert all(family.documentation.endswith(".") for family in families.values())


@pytest.mark.parametrize("stage", ["decode", "queue", "inference", "total"])
def test_every_stage_is_there_from_the_first_scrape_on(stage: str) -> None:
    assert Metrics().registry.get_sample_value("regraft_stage_seconds_count", {"stage": stage}) == 0


def test_the_depth_of_the_queue_is_read_at_every_scrape() -> None:
    metrics = Metrics()
    depth = [3]
    metrics.watch_queue(lambda: depth[0])

    assert metrics.registry.get_sample_value("regraft_queue_depth") == 3
    depth[0] = 5
    assert metrics.registry.get_sample_value("regraft_queue_depth") == 5


@pytest.mark.parametrize(("provider", "other"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_model_is_shown_on_one_provider_only(provider: str, other: str) -> None:
    metrics = Metrics()
    metrics.show_provider("m", other)
    metrics.show_provider("m", provider)

    shown = {
        name: metrics.registry.get_sample_value("regraft_provider", {"model": "m", "provider": name})
        for name in (provider, other)
    }
    assert shown == {provider: 1, other: 0}


def test_the_metrics_of_two_servers_in_one_process_are_apart() -> None:
    first, second = Metrics(), Metrics()
    first.requests.labels("Classify", "OK").inc()

    assert first.registry.get_sample_value("regraft_requests_total", {"method": "Classify", "code": "OK"}) == 1
    assert second.registry.get_sample_value("regraft_requests_total", {"method": "Classify", "code": "OK"}) is None


def test_the_exporter_answers_over_http_until_it_is_shut_down() -> None:
    metrics = Metrics()
    metrics.swaps.labels("m", "head").inc()
    server = metrics.start_exporter("127.0.0.1", 0)
    try:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()

    assert 'regraft_swaps_total{kind="head",model="m"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=10)
