"""A real Prometheus with the configuration of deploy/prometheus, and the queries of the dashboard."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from tests import REPOSITORY

DEPLOY: Final = REPOSITORY / "deploy"
RULES: Final = DEPLOY / "prometheus"
DASHBOARD: Final = DEPLOY / "grafana" / "regraft.json"
PROMETHEUS: Final = shutil.which("prometheus")
PROMTOOL: Final = shutil.which("promtool")
"""Of Debian's package ``prometheus``; None where it is not installed."""

_START_S: Final = 30.0


@dataclass(frozen=True)
class Query:
    """One line, or several, of a panel."""

    panel: str
    expression: str
    legend: str

    def with_values(self, interval: str) -> str:
        """Return what Grafana would send for all jobs, instances and models."""
        return _with_all(self.expression).replace("$__rate_interval", interval)


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard as Grafana reads them, without the rows."""
    dashboard = json.loads(DASHBOARD.read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(panel: dict[str, Any]) -> list[Query]:
    """Return the queries of a panel."""
    return [Query(panel["title"], target["expr"], target["legendFormat"]) for target in panel["targets"]]


def _with_all(expression: str) -> str:
    for variable in ("job", "instance", "model"):
        expression = expression.replace(f"${variable}", ".*")
    return expression


class Prometheus:
    """A running Prometheus that scrapes one server by the deployed configuration, but more often; a context manager."""

    def __init__(self, folder: Path, target: str, every: str) -> None:
        """Start it, with its data in ``folder``; ``target`` is HOST:PORT of the metrics, ``every`` as in "1s"."""
        config = yaml.safe_load((RULES / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
        config["rule_files"] = [str(RULES / name) for name in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        places = [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
        features = "--enable-feature=exemplar-storage"
        with (folder / "prometheus.log").open("w") as log:
            self._process = subprocess.Popen(
                [PROMETHEUS or "", f"--config.file={file}", *places, features], stdout=log, stderr=log
            )
        give_up_s = time.monotonic() + _START_S
        while not self._is_ready():
            assert time.monotonic() < give_up_s, (folder / "prometheus.log").read_text()
            time.sleep(0.05)

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def ask(self, path: str, **parameters: object) -> Any:  # noqa: ANN401 - JSON
        """Return what the HTTP API answers, without the envelope."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as answer:  # noqa: S310 - our own
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def values(self, expression: str) -> list[float]:
        """Return what a query gives now."""
        return [float(entry["value"][1]) for entry in self.ask("query", query=expression)["result"]]

    def _is_ready(self) -> bool:
        with suppress(OSError):
            return bool(urllib.request.urlopen(f"{self.url}/-/ready", timeout=1).status == 200)  # noqa: S310 - our own
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
