import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import InvalidRequestError
from tests.live_server import LiveServer
from tests.tiny import picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with pictures two folders deep, one in a name that is no text."""
    (tmp_path / "photos" / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "photos" / "red.png").write_bytes(picture("red"))
    (tmp_path / "photos" / "deep" / "deeper" / "blue.png").write_bytes(picture("blue"))
    Path(os.fsdecode(os.fsencode(tmp_path / "photos" / "green") + b"\xff.png")).write_bytes(picture("green"))
    return tmp_path / "photos"


def asked(*arguments: object) -> tuple[int, list[dict[str, Any]]]:
    done = CliRunner().invoke(app, ["classify", "--json", *map(str, arguments)], catch_exceptions=False)
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("by", ["server", "file"])
def test_a_folder_is_its_pictures_however_deep(by: str, folder: Path, shared: LiveServer) -> None:
    store = shared.settings.store
    flags = ("--target", shared.target) if by == "server" else ("--file", "colours", "--store", store)

    code, answers = asked(folder, *flags)

    assert code == 0
    assert {answer["file"]: answer["predictions"][0]["label"] for answer in answers} == {
        f"{folder}/deep/deeper/blue.png": "blue",
        f"{folder}/green\\xff.png": "green",
        f"{folder}/red.png": "red",
    }


@pytest.mark.parametrize("by", ["server", "file"])
def test_what_cannot_be_read_is_named_and_the_exit_code_says_so(by: str, folder: Path, shared: LiveServer) -> None:
    (folder / "notes.txt").write_text("no picture")
    (folder / "lost.png").symlink_to(folder / "nowhere.png")
    store = shared.settings.store
    flags = ("--target", shared.target) if by == "server" else ("--file", "colours", "--store", store)

    code, answers = asked(folder, *flags)

    failures = {Path(answer["file"]).name: answer["error"] for answer in answers if "error" in answer}
    assert code == 1
    assert failures["lost.png"] == f"a link to {folder}/nowhere.png, which is not there"
    assert failures.keys() == {"lost.png", "notes.txt"}
    assert len(answers) == 5


def test_a_folder_without_files_is_wrong_usage(tmp_path: Path, shared: LiveServer) -> None:
    with pytest.raises(InvalidRequestError, match="there are no files in it"):
        asked(tmp_path, "--target", shared.target)
