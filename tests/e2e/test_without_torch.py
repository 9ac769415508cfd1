"""``pip install .[cpu]`` in a fresh environment serves, labels and retrains; torch is nowhere to be imported."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from regraft.stores.models import ModelStore
from tests import REPOSITORY
from tests.environment import users
from tests.tiny import picture

SCRIPT = """
import json, subprocess, sys
from pathlib import Path
regraft, store, photos = sys.argv[1], sys.argv[2], Path(sys.argv[3])
ports = ["--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
server = subprocess.Popen([regraft, "serve", "--store", store, "--json", *ports], stdout=subprocess.PIPE)
target = json.loads(server.stdout.readline())["grpc"]

def run(*arguments):
    done = subprocess.run([regraft, *arguments, "--target", target, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)

before = run("classify", str(photos / "grey" / "0.png"))
labelled = run("label", str(photos))
job = run("retrain", "--wait")
after = run("classify", str(photos / "grey" / "0.png"))
server.terminate()
print(json.dumps({"before": before, "labelled": labelled, "job": job, "after": after, "exit": server.wait(60)}))
"""

OTHER_PYTHONS = [
    version
    for version in re.findall(r"Python :: (3\.\d+)", (REPOSITORY / "pyproject.toml").read_text())
    if version != f"3.{sys.version_info.minor}"
]


@pytest.fixture(scope="module")
def fresh_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the base install and the CPU runtime, made with pip as a user would."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, f"{wheel}[cpu]"], env=users(), capture_output=True, text=True, check=False)
    if done.returncode and ("ConnectionError" in done.stderr or "NewConnectionError" in done.stderr):
        pytest.skip(f"pip reaches no package index: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return folder


def test_torch_is_nowhere_to_be_imported(fresh_environment: Path) -> None:
    for module in ("torch", "torchvision", "timm", "onnxscript"):
        done = subprocess.run(
            [fresh_environment / "bin" / "python", "-c", f"import {module}"], check=False, stderr=subprocess.DEVNULL
        )
        assert done.returncode == 1, f"{module} was installed"


def test_the_base_install_serves_labels_and_retrains(
    fresh_environment: Path, store: ModelStore, tmp_path: Path
) -> None:
    result = _play(fresh_environment, store, tmp_path)

    assert result["before"]["predictions"][0]["label"] != "grey"
    assert result["labelled"]["accepted"] == 40
    assert result["job"]["state"] == "SUCCEEDED"
    assert result["after"]["predictions"][0]["label"] == "grey"
    assert result["after"]["version"] == 2
    assert result["exit"] == 0


@pytest.mark.parametrize("version", OTHER_PYTHONS)
def test_every_other_python_that_the_project_names_serves_and_retrains(
    version: str, wheel: Path, store: ModelStore, tmp_path: Path
) -> None:
    folder = tmp_path / "environment"
    for command in (
        ["venv", "--python", _interpreter(version), folder],
        ["pip", "install", "--python", folder, f"{wheel}[cpu]"],
    ):
        _uv(*command)

    assert _play(folder, store, tmp_path)["job"]["state"] == "SUCCEEDED"


def test_the_base_install_evaluates(fresh_environment: Path, store: ModelStore, tmp_path: Path) -> None:
    photos = _photos(tmp_path, ("red", "blue"))

    done = _run(
        *(fresh_environment / "bin" / "regraft", "evaluate", "colours", photos, "--store", store.root),
        *("--json", "--report", tmp_path / "page.html"),
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"][0]["metrics"]["accuracy"] == 1
    assert "Most confident mistakes" not in (tmp_path / "page.html").read_text()


def test_training_without_torch_says_which_extra_brings_it(
    fresh_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    photos = _photos(tmp_path, ("red", "grey"))

    done = _run(fresh_environment / "bin" / "regraft", "train", photos, "--store", tmp_path / "store")

    assert done.returncode == 1
    assert "pip install 'regraft[train]'" in done.stderr


def test_without_an_onnx_runtime_the_first_use_says_which_to_install(
    fresh_environment: Path, store: ModelStore, tmp_path: Path
) -> None:
    (tmp_path / "hidden" / "onnxruntime").mkdir(parents=True)
    (tmp_path / "hidden" / "onnxruntime" / "__init__.py").write_text("raise ImportError('hidden by the test')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "hidden")}

    done = _run(fresh_environment / "bin" / "regraft", "serve", "--store", store.root, environment=environment)

    assert done.returncode == 1
    assert "pip install 'regraft[cpu]'" in done.stderr
    assert "pip install 'regraft[gpu]'" in done.stderr


def _play(environment: Path, store: ModelStore, tmp_path: Path) -> dict[str, Any]:
    photos = _photos(tmp_path, ("grey",))
    arguments = [environment / "bin" / "python", "-c", SCRIPT, environment / "bin" / "regraft", store.root, photos]
    done = _run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _interpreter(version: str) -> Path:
    """Return a Python of the user's, or of pyenv's; skips the test where there is none."""
    of_pyenv = sorted(Path(users()["HOME"]).glob(f".pyenv/versions/{version}*/bin/python{version}"))
    interpreter = of_pyenv[-1] if of_pyenv else shutil.which(f"python{version}")
    if interpreter is None:
        pytest.skip(f"Python {version} is not installed")
    return Path(interpreter)


def _uv(*arguments: object) -> None:
    """Install as pip would, in a tenth of its time."""
    command = [str(Path(sys.executable).with_name("uv")), "--quiet", "--system-certs", *map(str, arguments)]
    done = subprocess.run(command, env=users(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _photos(tmp_path: Path, labels: tuple[str, ...]) -> Path:
    for label in labels:
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for number in range(40):
            (folder / f"{number}.png").write_bytes(picture(label, 100 + number))
    return tmp_path / "photos"


def _run(*command: object, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=environment)
