"""``regraft import`` on the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from regraft.cli.main import app
from regraft.errors import InvalidRequestError
from tests.training.classifiers import save_classifier


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    file = save_classifier(tmp_path / "colours.onnx")
    return [file, "--labels", "red,green,blue", "--name", "colours", "--store", tmp_path / "models"]


def test_a_file_becomes_a_version_that_is_told_of(given: list[object]) -> None:
    done = run(*given)

    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "no answer is off by more than" in said
    assert "models/colours/1/model.onnx" in said


def test_machines_get_json(given: list[object]) -> None:
    done = run(*given, "--mean", "0.5", "--std", "0.2,0.2,0.3", "--json")

    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["version"], result["promoted"], result["strategy"]) == (1, True, "import")
    assert result["labels"] == ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--name", "x"], "give either a FILE, or --head source"),
        (["net.onnx", "--head", "source", "--name", "x"], "give either a FILE, or --head source"),
        (["net.onnx", "--mean", "0.5,0.5", "--name", "x"], "need three numbers such as 0.485,0.456,0.406, or one"),
        (["net.onnx", "--std", "wide", "--name", "x"], "need three numbers"),
    ],
)
def test_wrong_usage_is_told_by_the_flag(arguments: list[str], said: str) -> None:
    done = run(*arguments)

    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


def test_a_head_without_a_network_is_refused(tmp_path: Path) -> None:
    done = run("--head", "source", "--name", "x", "--store", tmp_path)

    assert isinstance(done.exception, InvalidRequestError)
    assert str(done.exception) == "--head source: the classifier of which network? Add --backbone"
