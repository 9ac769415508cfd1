"""The demo of an installed wheel, on a user's own pictures and beside a user's own packages."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from regraft.stores.backbones import DEFAULT_BACKBONE
from tests.e2e.recorder import Recorder
from tests.tiny import COLOURS, picture

pytestmark = pytest.mark.usefixtures("among_foreign_packages")


def run_demo(
    regraft: Path, tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch, labels: list[str]
) -> dict[str, Any]:
    monkeypatch.setenv("REGRAFT_CACHE", str(shared_cache))
    for label in labels:
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for number in range(40):
            (folder / f"{number}.png").write_bytes(picture(label, number, side_px=32))
    command = [str(regraft), "demo", str(tmp_path / "photos"), "--json"]
    done = subprocess.run([*command, "--folder", str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_four_classes_two_are_learned_while_it_serves_and_a_proxy_is_not_asked_for_anything(
    installed: Path, tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch, recorded: Recorder
) -> None:
    result = run_demo(installed, tmp_path, shared_cache, monkeypatch, sorted(COLOURS))

    assert result["job"] == "SUCCEEDED"
    assert result["accuracy_before"] == {"old_classes": 1.0, "new_classes": 0.0}
    assert result["accuracy_after"] == {"old_classes": 1.0, "new_classes": 1.0}
    assert result["load"]["failed"] == 0
    assert {version for phase in result["load"]["phases"].values() for version in phase["versions"]} == {"1", "2"}
    assert 'regraft_swaps_total{kind="head",model="demo"} 1.0' in result["metrics"]
    assert result["backbones"] == [DEFAULT_BACKBONE]
    assert recorded.asked() == []
    assert recorded.left_at_home() == []


@pytest.mark.heavy  # the demo of four classes goes the same way
def test_of_two_classes_half_of_the_pictures_come_later(
    installed: Path, tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_demo(installed, tmp_path, shared_cache, monkeypatch, ["blue", "red"])

    assert result["job"] == "SUCCEEDED"
    assert result["accuracy_after"]["old_classes"] == 1.0
    assert result["accuracy_after"]["new_classes"] is None
    assert result["load"]["failed"] == 0
