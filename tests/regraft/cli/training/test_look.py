import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from regraft.cli import terminal
from regraft.cli.main import app
from regraft.cli.training.look import half_blocks
from tests.tiny import picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four pictures of red and of blue, and one file that is none."""
    for label in ("red", "blue"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "photos" / label / f"{number}.png").write_bytes(picture(label, number))
    (tmp_path / "photos" / "red" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def test_the_command_says_what_there_is_and_what_is_left_out(photos: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.html"
    done = CliRunner().invoke(app, ["look", str(photos), "--sheet", str(sheet)], catch_exceptions=False)

    assert done.exit_code == 0
    assert "red/notes.txt: not a picture in a format that is read here" in done.stdout
    assert "8 pictures: PNG 8" in done.stdout
    assert "exact duplicates: 0" in done.stdout
    assert "near-duplicates, which a training keeps together, were not looked for: --backbone NAME" in done.stdout
    assert "data:image/jpeg;base64," in sheet.read_text()


def test_data_that_a_training_refuses_is_exit_code_1(photos: Path) -> None:
    for number in range(3):
        (photos / "red" / f"{number}.png").unlink()
    done = CliRunner().invoke(app, ["look", str(photos), "--json"], catch_exceptions=False)

    assert done.exit_code == 1
    assert "class 'red' has 1 usable training image(s)" in json.loads(done.stdout)["refused"]


def test_a_terminal_in_colour_shows_pictures_of_each_class(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=120, soft_wrap=True)
    monkeypatch.setattr(terminal, "out", coloured)

    CliRunner().invoke(app, ["look", str(photos)], catch_exceptions=False)

    said = coloured.file
    assert isinstance(said, io.StringIO)
    assert said.getvalue().count("▀") == 2 * 10 * (4 * 20 + 4)  # two classes; 10 lines of four pictures and their gaps


def test_half_blocks_hold_two_pixels_each() -> None:
    pixels = np.array([[[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]], [[10, 11, 12]]], np.uint8)

    text = half_blocks(pixels)

    assert text.plain == "▀\n▀\n"
    assert [str(span.style) for span in text.spans] == ["rgb(1,2,3) on rgb(4,5,6)", "rgb(7,8,9) on rgb(10,11,12)"]
