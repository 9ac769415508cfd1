"""Reasons for answers, on the terminal and as JSON."""

from pathlib import Path

from regraft.label_rules import image_hash
from tests.live_server import LiveServer
from tests.regraft.cli.client.commands import run, say
from tests.tiny import picture


def test_neighbours_are_listed_for_a_file_and_for_a_hash(shared: LiveServer, tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    file.write_bytes(picture("red", 700))

    (found,) = run(shared, "examples", "neighbours", str(file), "--count", "3")
    shown = say(shared, "examples", "neighbours", image_hash(picture("red", 2))[:16])

    assert [each["label"] for each in found["neighbours"]] == ["red"] * 3
    assert {each["split"] for each in found["neighbours"]} <= {"TRAINING", "HOLDOUT"}
    assert "answered red" in shown


def test_the_map_is_drawn_with_a_letter_for_each_label(shared: LiveServer) -> None:
    points = run(shared, "examples", "map")
    shown = say(shared, "examples", "map")

    assert {point["label"] for point in points} == {"red", "green", "blue"}
    assert "a blue: 30" in shown
    assert any("b" in line and len(line) > 20 for line in shown.splitlines())


def test_an_explanation_is_drawn_and_its_picture_written(shared: LiveServer, tmp_path: Path) -> None:
    file, overlay = tmp_path / "red.png", tmp_path / "why.png"
    file.write_bytes(picture("red", 700))

    shown = say(shared, "explain", str(file), "--save", str(overlay))
    (explained,) = run(shared, "explain", str(file), "--label", "blue")

    assert shown.startswith("red (")
    assert overlay.read_bytes().startswith(b"\x89PNG")
    assert explained["label"] == "blue"
    assert len(explained["heat"]) == explained["cells"] ** 2
