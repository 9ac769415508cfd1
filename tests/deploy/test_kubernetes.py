"""The manifests as kubectl puts them together, against Kubernetes' own schemas and against the code."""

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from serving.settings import Settings
from serving.telemetry.metrics import Metrics
from tests import REPOSITORY
from tests.deploy.programs import program
from training.retrain.__main__ import main as retrain

KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
VERSION = "1.32"
"""The oldest of Kubernetes that the manifests are for."""

CLIENT = {"REGRAFT_TARGET", "REGRAFT_TOKEN", "REGRAFT_TLS_CA", "REGRAFT_CLIENT_CERT", "REGRAFT_CLIENT_KEY"}
SETTINGS = {f"REGRAFT_{name.upper()}" for name in Settings.model_fields} | {"REGRAFT_CACHE"} | CLIENT


def built(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [program("kubectl", "make kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=["base", "gpu", "train", "gpu with tls"])
def resources(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if request.param != "gpu with tls":
        return built(KUBERNETES / request.param)
    folder = tmp_path_factory.mktemp("own")
    place = os.path.relpath(KUBERNETES, folder)
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": [f"{place}/gpu"], "components": [f"{place}/tls"]})
    )
    return built(folder)


def pods(resources: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the template of each pod."""
    for resource in resources:
        spec = resource.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield spec["template"]


def containers(resources: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for pod in pods(resources):
        yield from pod["spec"]["containers"]


def servers(templates: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for pod in templates:
        yield from (container for container in pod["spec"]["containers"] if container["name"] == "server")


def test_every_resource_is_what_kubernetes_expects(resources: list[dict[str, Any]]) -> None:
    for resource in resources:
        kubernetes_validate.validate(resource, VERSION, strict=True)


def test_what_is_wrong_would_be_found(resources: list[dict[str, Any]]) -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**resources[-1], "spec": {"no such field": 1}}, VERSION, strict=True)


def test_every_selector_finds_the_pods_it_is_for(resources: list[dict[str, Any]]) -> None:
    labels = [pod["metadata"]["labels"] for pod in pods(resources)]
    for resource in resources:
        spec = resource.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector") or {}
        wanted = selector.get("matchLabels", selector)
        if wanted:
            assert any(wanted.items() <= each.items() for each in labels), resource
            assert wanted["app.kubernetes.io/name"] == "regraft"


def test_no_container_has_rights_that_it_does_not_need(resources: list[dict[str, Any]]) -> None:
    for pod in pods(resources):
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert pod["spec"]["automountServiceAccountToken"] is False
    for container in containers(resources):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_every_volume_that_is_mounted_is_there(resources: list[dict[str, Any]]) -> None:
    for pod in pods(resources):
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == {
                each["name"] for each in pod["spec"]["volumes"]
            }


def test_every_variable_is_one_that_regraft_reads(resources: list[dict[str, Any]]) -> None:
    for container in containers(resources):
        for variable in container.get("env", []):
            assert variable["name"] in SETTINGS | {"MODEL", "PGPASSWORD"}


def test_a_stop_has_time_for_its_grace(resources: list[dict[str, Any]]) -> None:
    for pod in pods(resources):
        for server in servers([pod]):
            delay_s = server["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pod["spec"]["terminationGracePeriodSeconds"] >= delay_s + Settings.model_fields["grace_s"].default


def test_probes_ask_what_the_metrics_port_answers(resources: list[dict[str, Any]]) -> None:
    """Which knows no TLS, and no caller; `tests/serving/telemetry/test_http_port.py` holds what it says."""
    for server in servers(pods(resources)):
        asked = [server[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
        assert [probe["path"] for probe in asked] == ["/healthz", "/healthz", "/readyz"]
        assert {probe["port"] for probe in asked} == {"metrics"}
        assert {"name": "metrics", "containerPort": 8002} in server["ports"]
        assert {"name": "REGRAFT_MAX_CONNECTION_AGE", "value": "5m"} in server["env"]


def test_the_autoscaler_goes_by_a_metric_that_a_server_has() -> None:
    [autoscaler] = [each for each in built(KUBERNETES / "base") if each["kind"] == "HorizontalPodAutoscaler"]
    [metric] = autoscaler["spec"]["metrics"]

    assert metric["pods"]["metric"]["name"] in {family.name for family in Metrics().registry.collect()}


def test_the_nightly_retrain_has_flags_that_the_module_knows(capsys: pytest.CaptureFixture[str]) -> None:
    [job] = [each for each in built(KUBERNETES / "base") if each["kind"] == "CronJob"]
    [container] = containers([job])
    with pytest.raises(SystemExit):
        retrain(["--help"])

    assert container["command"][-4:] == ["python", "-P", "-m", "training.retrain"]
    assert {word for word in container["args"] if word.startswith("--")} <= set(
        re.findall(r"--[a-z-]+", capsys.readouterr().out)
    )
