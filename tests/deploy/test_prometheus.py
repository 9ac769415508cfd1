"""deploy/prometheus and deploy/grafana against the programs that read them, and a server under load."""

import math
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from regraft.client.client import Client, RemoteError
from regraft.stores.models import ModelStore
from tests.deploy.prometheus import DASHBOARD, PROMTOOL, RULES, Prometheus, panels, queries
from tests.e2e.conftest import ServerProcess
from tests.tiny import picture, publish_tiny
from tests.waiting import wait_until

needs_prometheus = pytest.mark.skipif(PROMTOOL is None, reason="Debian's package prometheus is not installed")
RUNBOOK = (RULES.parent.parent / "docs" / "runbook.md").read_text()
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
NEEDS_A_GPU = {"regraft_gpu_memory_bytes"}


def promtool(*arguments: str) -> str:
    done = subprocess.run([PROMTOOL or "", *arguments], cwd=RULES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_prometheus
def test_prometheus_accepts_the_configuration() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


@needs_prometheus
def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_both_ways(alert: str) -> None:
    tests = yaml.safe_load((RULES / "alerts_test.yml").read_text())["tests"]
    expected = [case["exp_alerts"] for test in tests for case in test["alert_rule_test"] if case["alertname"] == alert]

    assert {bool(alerts) for alerts in expected} == {True, False}


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_how_bad_it_is_and_has_its_entry_in_the_runbook(alert: str) -> None:
    assert ALERTS[alert]["labels"]["severity"] in ("page", "ticket")
    assert ALERTS[alert]["annotations"]["runbook"] == f"docs/runbook.md#{alert.lower()}"
    assert f"\n## {alert}\n" in RUNBOOK


def test_the_runbook_has_no_entry_for_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^## (Regraft\w+)$", RUNBOOK, flags=re.MULTILINE)) == set(ALERTS)


def test_the_panels_of_the_dashboard_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert '"uid": "regraft"' in DASHBOARD.read_text()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has watched a server through requests of all kinds, labels, a retrain and a swap."""
    folder = tmp_path_factory.mktemp("watched")
    store = ModelStore(folder / "store")
    publish_tiny(store)
    with (
        ServerProcess(folder / "store", "--provider", "cpu") as server,
        server.client() as client,
        Prometheus(folder, re.sub(r"^http://|/metrics$", "", server.places["metrics"]), "1s") as prometheus,
    ):
        _ask(client, 0)
        wait_until(lambda: prometheus.values("regraft_confidence_count"))
        list(client.add_examples([(picture("grey", number), "grey") for number in range(30)]))
        *_, end = client.watch_job(client.retrain().id)
        assert end.state == end.STATE_SUCCEEDED
        client.shadow(1)
        _ask(client, 1)
        wait_until(lambda: prometheus.values("regraft_shadow_pictures_total"))
        _ask(client, 2)
        wait_until(lambda: prometheus.values("regraft_served_version") == [2])
        wait_until(lambda: prometheus.values("regraft_retrain_seconds_count") == [1])
        wait_until(lambda: prometheus.values("regraft_drifted"))
        wait_until(lambda: prometheus.values("rate(regraft_shadow_pictures_total[10m]) > 0"))
        yield prometheus


def _ask(client: Client, round_: int) -> None:
    for number in range(120):  # drift is told from 100 answers on
        client.classify(picture(("red", "green", "blue")[number % 3], 200 * round_ + number))
    with pytest.raises(RemoteError):
        client.classify(b"no picture")


@needs_prometheus
@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_every_query_of_the_dashboard_returns_data(watched: Prometheus, panel: dict[str, Any]) -> None:
    for query in queries(panel):
        expression = query.with_values("10m")
        values = watched.values(expression)
        if any(name in expression for name in NEEDS_A_GPU):
            continue  # a valid query, which Prometheus has answered
        assert values, expression
        assert not all(map(math.isnan, values)), expression


@needs_prometheus
def test_the_rules_find_nothing_wrong_with_a_server_that_is_well(watched: Prometheus) -> None:
    groups = watched.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert {rule["health"] for rule in rules} == {"ok"}
    assert [alert["labels"] for alert in watched.ask("alerts")["alerts"] if alert["state"] == "firing"] == []
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == set(ALERTS)
