import json
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from regraft.files import cache_folder
from regraft.machine import cpu_budget
from regraft.model import artifact
from regraft.stores.models import MODEL_FILE, ModelStore
from serving.inference.execution_plan import Point, plan_file, read_points, write_points


def plan(store: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "regraft.cli", "plan", *arguments, "--store", str(store), "--provider", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


KNOWN = (Point(2, 1, 1, 200.0, 10.0), Point(1, 2, 1, 150.0, 6.6))


@pytest.fixture
def known(store: ModelStore) -> Path:
    """The file of a measurement that was kept."""
    digest = artifact.read(store.folder("colours", 1) / MODEL_FILE).card.backbone.digest
    file = plan_file(cache_folder() / "plans", digest, "cpu", cpu_budget(), onnxruntime.__version__)
    write_points(file, KNOWN)
    return file


@pytest.mark.usefixtures("known")
def test_plan_shows_what_was_measured_and_what_a_server_would_choose(store: ModelStore) -> None:
    machine = plan(store.root, "colours", "--json")
    people = plan(store.root, "colours:1")
    for_latency = plan(store.root, "colours", "--optimise", "latency", "--json")

    report = json.loads(machine.stdout)
    assert [Point(**point) for point in report["measured"]] == list(KNOWN), "measured once, chosen from twice"
    assert (report["plan"]["text"], report["provider"], report["doubt"]) == ("2x1x1", "cpu", "")
    assert json.loads(for_latency.stdout)["plan"]["text"] == "1x2x1"
    assert people.stdout.count("<- chosen") == 1
    assert "for throughput: 2x1x1, that is 2 run(s) at once" in people.stdout


def test_a_fresh_measurement_is_kept_where_its_rounds_agree_and_said_to_be_in_doubt_where_not(
    store: ModelStore, known: Path
) -> None:
    report = json.loads(plan(store.root, "colours", "--fresh", "--cpus", "1", "--json").stdout)

    chosen, found = report["plan"], tuple(Point(**point) for point in report["measured"])
    assert (report["cpus"], chosen["lanes"], chosen["threads"]) == (1, 1, 1)
    assert (1, 1, chosen["max_batch"]) in {(point.lanes, point.threads, point.batch) for point in found}
    assert read_points(known) == KNOWN, "that is another number of CPUs"
    kept = [read_points(file) for file in known.parent.iterdir()]
    assert (found in kept) != bool(report["doubt"])


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("colours", "--cpus", "100000"), 2, "--cpus"),
        (("cats",), 1, "cats"),
        (("colours:2",), 1, "no version 2"),
        (("colours:new",), 2, "NAME:VERSION"),
        (("colours", "--optimise", "everything"), 2, "--optimise"),
    ],
)
def test_what_cannot_be_planned_is_said(store: ModelStore, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = plan(store.root, *arguments)

    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr
