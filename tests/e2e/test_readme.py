"""The README's commands, run as they stand, one after the other; and the page of settings against the code."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.cli.serving.settings_page import settings_page
from serving.settings import Settings
from tests import REPOSITORY
from tests.tiny import picture

README = (REPOSITORY / "README.md").read_text()
COLOUR_OF = {"roses": "red", "tulips": "blue", "daisy": "grey"}


def commands(program: str) -> list[str]:
    """Return the README's lines of shell that start with ``program``, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(program)]


def test_every_command_works_in_the_order_of_the_page(
    tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label, colour in COLOUR_OF.items():
        _pictures(tmp_path / "photos" / label, colour, 30)
    _pictures(tmp_path / "more" / "sunflowers", "green", 30)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REGRAFT_CACHE", str(shared_cache))
    monkeypatch.setenv("REGRAFT_GRPC", "127.0.0.1:0")
    monkeypatch.setenv("REGRAFT_METRICS", "127.0.0.1:0")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    look, train, serve, *others = commands("regraft ")
    assert "90 pictures: PNG 90" in _run(look)
    _run(train)
    with subprocess.Popen(shlex.split(serve), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        target = re.search(r"gRPC on (\S+),", server.stdout.readline())
        assert target
        monkeypatch.setenv("REGRAFT_TARGET", target[1])
        said = {command: _run(command) for command in others}
        server.terminate()
        assert server.wait(timeout=60) == 0
    [cron] = re.findall(r"`python (-P -m training\.retrain [^`]+)`", README)
    _run(f"{sys.executable} {cron}")

    assert len(others) == 11
    assert "roses" in said["regraft classify photos/roses/1.jpg"].split()[1]
    assert said["regraft classify --file flowers photos/roses"].split()[1] == "roses"
    assert "of these pictures were trained on; on the other" in said["regraft evaluate flowers photos"]
    assert "30 accepted" in said["regraft label more"]
    assert "SUCCEEDED" in said["regraft retrain --wait"]
    assert "sunflowers" in said["regraft models show"]
    assert "shadow: version 1" in said["regraft models shadow 1"]
    assert "pictures added: 30 (sunflowers 30)" in said["regraft models diff flowers:1 2"]
    assert "head, fitted anew: the same bytes" in said["regraft verify flowers"]
    assert "closed loop, 8 clients" in said["regraft bench photos"]


def test_no_command_of_a_page_imports_regraft_from_the_working_directory() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "deploy").rglob("*.*ml")]

    assert not [
        page for page in pages if re.search(r"(?<!-P )(?<!-P, )-m,? (regraft|training|serving)", page.read_text())
    ]


def test_the_targets_of_make_that_the_page_names_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))

    assert {command.split()[1] for command in commands("make ")} <= targets


def test_the_page_of_settings_is_what_the_code_says() -> None:
    assert (REPOSITORY / "docs/settings.md").read_text() == settings_page(), "run `make docs`"
    rows = set(re.findall(r"`(REGRAFT_[A-Z0-9_]+)`", settings_page()))
    assert rows == {f"REGRAFT_{name.upper()}" for name in Settings.model_fields}


def _pictures(folder: Path, colour: str, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(picture(colour, number, side_px=32))


def _run(command: str) -> str:
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
