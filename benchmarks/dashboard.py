"""The queries of the Grafana dashboard, plotted: ``python -m benchmarks.dashboard PHOTOS OUT.png``; five minutes.

Trains on all classes of a folder of photos but the last, serves, and lets a real Prometheus watch three minutes of
requests: a few clients, many, more than the server takes, pictures of the class that it does not know, then labels of
that class, a retrain and a swap. No figure to quote: it shows what an operator sees.
"""

import argparse
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter

from benchmarks.server_process import ServerProcess
from benchmarks.steady_store import labelled
from regraft.bench.generator import run_bench
from regraft.bench.settings import BenchSettings
from regraft.client.client import Client
from regraft.client.connection import Connection
from tests.deploy.prometheus import Prometheus, panels, queries
from training.settings import TrainSettings
from training.train import train

_NAME: Final = "flowers"
_EACH: Final = 90  # pictures of a class
_PERMITS: Final = 16
_STEP_S: Final = 2
_INTERVAL: Final = "15s"
_UNITS: Final = {"percentunit": (100.0, "%"), "bytes": (2.0**-20, "MiB"), "s": (1000.0, "ms"), "reqps": (1.0, "/s")}
_PANEL_INCHES: Final = (5.4, 1.9)


def main() -> None:
    """Do as the module says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="a folder of photos, with a folder for each class")
    parser.add_argument("out", type=Path, help="the picture that is written")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _watch(options.photos, Path(folder), options.out)


def _watch(photos: Path, folder: Path, out: Path) -> None:
    files: dict[str, list[Path]] = {}
    for path, label in labelled(photos):
        files.setdefault(label, []).append(path)
    *known, unknown = files
    for label in known:
        (folder / "photos" / label).mkdir(parents=True)
        for path in files[label][:_EACH]:
            shutil.copy(path, folder / "photos" / label)
    train(TrainSettings(data=folder / "photos", store=folder / "store", name=_NAME))
    old = [path.read_bytes() for label in known for path in files[label][_EACH : _EACH + 40]]
    new = [path.read_bytes() for path in files[unknown][_EACH : _EACH + 40]]
    os.environ["REGRAFT_MAX_IN_FLIGHT"] = str(_PERMITS)
    with (
        ServerProcess(folder / "store", os.sched_getaffinity(0)) as server,
        Prometheus(folder, server.metrics.removeprefix("http://").removesuffix("/metrics"), "1s") as prometheus,
        Client(server.target) as client,
    ):
        began_s = time.time()
        _load(server.target, old, 2, 35)
        _load(server.target, old, 8, 30)
        _load(server.target, old, 24, 20)
        _load(server.target, old + 2 * new, 2, 40)
        list(client.add_examples((path.read_bytes(), unknown) for path in files[unknown][:_EACH]))
        *_, end = client.watch_job(client.retrain(max_class_drop=20).id)
        print(end.message)  # noqa: T201 - this is a command
        client.shadow(end.champion)
        _load(server.target, old + 2 * new, 2, 45)
        _plot(prometheus, began_s, time.time(), out)


def _load(target: str, images: Sequence[bytes], clients: int, seconds: float) -> None:
    settings = BenchSettings(tuple(images), Connection(target), concurrency=clients, duration_s=seconds, warm_up_s=0.0)
    print(clients, "clients:", json.dumps(run_bench(settings).to_dict()))  # noqa: T201 - this is a command


def _plot(prometheus: Prometheus, start_s: float, end_s: float, out: Path) -> None:
    shown = panels()
    rows = sorted({panel["gridPos"]["y"] for panel in shown})
    columns = max(24 // panel["gridPos"]["w"] for panel in shown)
    width, height = _PANEL_INCHES
    with plt.style.context("dark_background"):
        figure, grid = plt.subplots(len(rows), columns, figsize=(width * columns, height * len(rows)), squeeze=False)
        for panel in shown:
            place = panel["gridPos"]
            axes = grid[rows.index(place["y"])][place["x"] // place["w"]]
            _plot_panel(axes, prometheus, panel, start_s, end_s)
        figure.tight_layout(pad=0.6)
        figure.savefig(out, dpi=66)


def _plot_panel(axes: Axes, prometheus: Prometheus, panel: dict[str, Any], start_s: float, end_s: float) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    factor, unit = _UNITS.get(defaults["unit"], (1.0, ""))
    lines: list[tuple[str, list[float], list[float]]] = []
    for query in queries(panel):
        found = prometheus.ask(
            "query_range", query=query.with_values(_INTERVAL), start=start_s, end=end_s, step=_STEP_S
        )
        for series in found["result"]:
            times = [time_s for time_s, _ in series["values"]]
            values = [factor * float(value) for _, value in series["values"]]
            lines.append((_legend(query.legend, series["metric"]), times, values))
    if defaults["custom"].get("stacking"):
        times = sorted({time_s for _, times, _ in lines for time_s in times})
        heights = [_at(times, line_times, values) for _, line_times, values in lines]
        axes.stackplot(_dates(times), heights, labels=[legend for legend, _, _ in lines], alpha=0.8)
    else:
        for legend, times, values in lines:
            axes.plot(_dates(times), values, label=legend, linewidth=1.2)
    axes.set_title(f"{panel['title']}{f' [{unit}]' if unit else ''}", fontsize=9, loc="left")
    axes.set_xlim(_dates([start_s])[0], _dates([end_s])[0])
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(DateFormatter("%M:%S"))  # type: ignore[no-untyped-call]  # matplotlib's
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.2)
    axes.legend(fontsize=6, loc="upper left", framealpha=0.4)


def _legend(pattern: str, labels: dict[str, str]) -> str:
    """Return the legend of a series as Grafana writes it, but without the address that changes from run to run."""
    told = {**labels, "instance": "server"}
    return re.sub(r"{{(\w+)}}", lambda found: told.get(found[1], ""), pattern) or "none"


def _at(wanted: Sequence[float], times: Sequence[float], values: Sequence[float]) -> list[float]:
    known = dict(zip(times, values, strict=True))
    return [0.0 if math.isnan(value := known.get(time_s, 0.0)) else value for time_s in wanted]


def _dates(times_s: Sequence[float]) -> list[float]:
    return [time_s / 86400 for time_s in times_s]  # matplotlib counts days since 1970


if __name__ == "__main__":
    main()
