import json
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.store import ModelStore


def plan(store: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "regraft.cli", "plan", *arguments, "--store", str(store), "--provider", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_plan_shows_what_was_measured_and_what_a_server_would_choose(store: ModelStore) -> None:
    machine = plan(store.root, "colours", "--json")
    people = plan(store.root, "colours:1")
    for_latency = plan(store.root, "colours", "--optimise", "latency", "--json")

    report = json.loads(machine.stdout)
    chosen = report["plan"]
    measured = {(point["lanes"], point["threads"], point["batch"]) for point in report["measured"]}
    assert (chosen["lanes"], chosen["threads"], chosen["max_batch"]) in measured
    assert report["provider"] == "cpu"
    assert people.stdout.count("<- chosen") == 1
    assert json.loads(for_latency.stdout)["measured"] == report["measured"], "measured once, chosen from twice"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
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
