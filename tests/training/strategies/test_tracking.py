import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests import REPOSITORY
from tests.training.conftest import block, in_a_child
from training.evaluation.findings import Epoch
from training.strategies.tracking import Tracked, Tracker, Trackers, tracking

EPOCHS = [
    Epoch(number, 1.5 / number, 2.0 / number, 0.5 + number / 10, 1e-3 / number, 0.25, 0.75, 1e-4 / number, 99.0)
    for number in (1, 2, 3)
]
FIGURES = {"train_loss", "tune_loss", "tune_accuracy", "learning_rate", "seconds"}
FIGURES |= {"train_accuracy", "backbone_rate", "images_per_s"}


class Notebook:
    """A tracker that writes down what it is told, and fails where it should."""

    def __init__(self, fails_at: str = "") -> None:
        self.heard: list[tuple[Any, ...]] = []
        self._fails_at = fails_at

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        self._hear("epoch", number, dict(figures))

    def result(self, figures: Mapping[str, float], report: Path) -> None:
        self._hear("result", dict(figures), report)

    def close(self, *, failed: bool = False) -> None:  # noqa: ARG002 - part of the protocol
        self._hear("close")

    def _hear(self, *what: Any) -> None:  # noqa: ANN401 - whatever it is told
        if what[0] == self._fails_at:
            raise ConnectionError("the server is gone")
        self.heard.append(what)


class Broken(Notebook):
    """A tracker of another name, for the log."""


def tell(trackers: Trackers) -> None:
    for epoch in EPOCHS[:2]:
        trackers.epoch(epoch)
    trackers.result({"accuracy": 0.9}, Path("report.html"))
    trackers.close()


def test_every_tracker_hears_everything() -> None:
    both = [Notebook(), Notebook()]

    tell(Trackers(list[Tracker](both)))

    for notebook in both:
        assert [what[0] for what in notebook.heard] == ["epoch", "epoch", "result", "close"]
        _, number, figures = notebook.heard[1]
        assert number == 2
        assert figures == {
            "train_loss": 0.75,
            "tune_loss": 1.0,
            "tune_accuracy": 0.7,
            "learning_rate": 5e-4,
            "seconds": 0.25,
            "train_accuracy": 0.75,
            "backbone_rate": 5e-5,
            "images_per_s": 99.0,
        }
        assert notebook.heard[2] == ("result", {"accuracy": 0.9}, Path("report.html"))


@pytest.mark.parametrize("fails_at", ["epoch", "result", "close"])
def test_a_tracker_that_fails_is_named_once_and_left_out_while_the_others_go_on(
    fails_at: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken, well = Broken(fails_at), Notebook()

    with caplog.at_level(logging.WARNING):
        tell(Trackers([broken, well]))

    assert [what[0] for what in well.heard] == ["epoch", "epoch", "result", "close"]
    assert [record.getMessage() for record in caplog.records] == [
        "Broken takes no more figures of this run: the server is gone"
    ]


def test_no_trackers_at_all_are_fine() -> None:
    tell(Trackers([]))


class Ears:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def progress(self, stage: str, done: int, total: int) -> None:
        self.heard.append((stage, done, total))

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        self.heard.append((epoch, epochs))

    def note(self, text: str) -> None:
        self.heard.append(text)


def test_a_tracked_listener_hears_all_and_the_trackers_hear_of_epochs() -> None:
    ears, notebook = Ears(), Notebook()
    tracked = Tracked(ears, Trackers([notebook]))

    tracked.progress("scan", 1, 2)
    tracked.note("probing")
    tracked.epoch(EPOCHS[0], 30)

    assert ears.heard == [("scan", 1, 2), "probing", (EPOCHS[0], 30)]
    assert [(what, number) for what, number, _ in notebook.heard] == [("epoch", 1)]


def test_nothing_is_written_where_nothing_was_asked_for(tmp_path: Path) -> None:
    with tracking(tmp_path / "events", "", "flowers", {}, tensorboard=False) as trackers:
        tell(trackers)

    assert not list(tmp_path.iterdir())


def test_a_run_without_epochs_leaves_no_events(tmp_path: Path) -> None:
    with tracking(tmp_path / "events", "", "flowers", {}, tensorboard=True) as trackers:
        trackers.result({"accuracy": 0.9}, tmp_path / "report.html")

    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed: pip install tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own code
def test_tensorboard_reads_what_was_tracked(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 - optional

    with tracking(tmp_path / "events", "", "flowers", {}, tensorboard=True) as trackers:
        for epoch in EPOCHS:
            trackers.epoch(epoch)

    (folder,) = (tmp_path / "events").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    assert set(tags["scalars"] or tags["tensors"]) == FIGURES
    found = {name: events.Tensors(name) if tags["tensors"] else events.Scalars(name) for name in FIGURES}
    for name, entries in found.items():
        assert [entry.step for entry in entries] == [1, 2, 3]
        values = [entry.tensor_proto.float_val[0] if tags["tensors"] else entry.value for entry in entries]
        assert values == pytest.approx([getattr(epoch, name) for epoch in EPOCHS])


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed: pip install tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_figures_that_are_no_numbers_are_tracked_too(tmp_path: Path) -> None:
    """A run without pictures to tune by has no tune loss."""
    with tracking(tmp_path / "events", "", "flowers", {}, tensorboard=True) as trackers:
        trackers.epoch(Epoch(1, 1.0, math.nan, math.nan, 1e-3, 1.0))

    assert len(list((tmp_path / "events").iterdir())) == 1


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed: pip install tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_every_run_has_events_in_a_folder_of_its_own_also_where_two_begin_in_one_second(tmp_path: Path) -> None:
    for _ in range(3):
        with tracking(tmp_path / "events", "", "flowers", {}, tensorboard=True) as trackers:
            for epoch in EPOCHS:
                trackers.epoch(epoch)

    runs = list((tmp_path / "events").iterdir())
    assert len(runs) == 3
    assert all(run.is_dir() and len(list(run.iterdir())) == 1 for run in runs)


def test_mlflow_that_is_not_installed_says_what_to_install(tmp_path: Path) -> None:
    environment = block(tmp_path / "blocked", ["mlflow"], "raise ImportError('not here')")
    script = """
from pathlib import Path
from regraft.errors import MissingPackageError
from training.strategies.tracking import tracking
try:
    with tracking(Path("events"), "sqlite:///runs.db", "flowers", {}, tensorboard=False):
        print("tracked")
except MissingPackageError as error:
    print(error)
"""

    child = in_a_child(["-c", script], environment)

    assert child.stdout.strip() == "--mlflow: pip install 'regraft[track]'", child.stderr


MLFLOW_RUN = """
import json
from pathlib import Path
from training.evaluation.findings import Epoch
from training.strategies.tracking import tracking
from regraft.errors import InvalidRequestError

uri = "sqlite:///runs.db"
Path("report.html").write_text("a report")
with tracking(Path("events"), uri, "flowers", {"seed": "7"}, tensorboard=False) as trackers:
    trackers.epoch(Epoch(1, 1.5, 2.0, 0.6, 1e-3, 0.25))
    trackers.epoch(Epoch(2, 0.75, 1.0, 0.7, 5e-4, 0.25))
    trackers.result({"accuracy": 0.9}, Path("report.html"))

refused = ""
try:
    with tracking(Path("events"), "nonsense://nowhere", "flowers", {}, tensorboard=False):
        pass
except InvalidRequestError as error:
    refused = str(error)

from mlflow import MlflowClient
client = MlflowClient(uri)
(experiment,) = [e for e in client.search_experiments() if e.name == "flowers"]
(run,) = client.search_runs([experiment.experiment_id])
history = client.get_metric_history(run.info.run_id, "train_loss")
Path("found.json").write_text(json.dumps({
    "status": run.info.status,
    "params": run.data.params,
    "names": sorted(run.data.metrics),
    "accuracy": run.data.metrics["accuracy"],
    "train_loss": sorted((m.step, m.value) for m in history),
    "files": [file.path for file in client.list_artifacts(run.info.run_id)],
    "refused": refused,
}))
"""


@pytest.mark.skipif(find_spec("mlflow") is None, reason="MLflow is not installed: pip install mlflow")
def test_mlflow_reads_what_was_tracked(tmp_path: Path) -> None:
    """In a process of its own: MLflow takes long to import, and warns of itself."""
    child = subprocess.run(
        [sys.executable, "-c", MLFLOW_RUN],
        cwd=tmp_path,  # where MLflow puts its artifacts
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )

    assert child.returncode == 0, child.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["refused"].startswith("--mlflow: nonsense://nowhere: ")
    assert found["status"] == "FINISHED"
    assert found["params"] == {"seed": "7"}
    assert found["names"] == sorted([*FIGURES, "accuracy"])
    assert found["accuracy"] == 0.9
    assert found["train_loss"] == [[1, 1.5], [2, 0.75]]
    assert found["files"] == ["report.html"]
