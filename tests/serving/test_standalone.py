import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from regraft.cli.json_output import answer_to_dict
from regraft.cli.main import app
from regraft.errors import ArtifactError
from regraft.image.limits import DEFAULT_LIMITS, ImageLimits
from regraft.stores.models import MODEL_FILE, ModelStore
from serving.standalone import classify_standalone
from tests.live_server import LiveServer
from tests.tiny import COLOURS, picture, publish_tiny

PICTURES = [(label, picture(label, number)) for label in COLOURS for number in range(3)]


def without_what_changes(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return answers without their times and the names that each prediction gets."""
    return [
        {name: value for name, value in answer.items() if name not in {"timings_ms", "request_id"}}
        for answer in answers
    ]


def asked(
    file: Path, pictures: list[tuple[str, bytes]], top_k: int = 0, limits: ImageLimits = DEFAULT_LIMITS
) -> list[dict[str, Any]]:
    """Write the pictures beside the model, and return what it answers."""
    files = []
    for number, (key, data) in enumerate(pictures):
        files.append((key, file.with_name(f"{number}.picture")))
        files[-1][1].write_bytes(data)
    return [answer_to_dict(answer) for answer in classify_standalone(file, files, top_k=top_k, limits=limits)]


def test_a_file_answers_as_a_server_does(store: ModelStore) -> None:
    file = store.folder("colours", 1) / MODEL_FILE
    pictures = [*PICTURES, ("broken", b"no picture"), ("empty", b"")]
    with LiveServer(store) as live:
        served = [answer_to_dict(answer) for answer in live.client.classify_stream(pictures, top_k=2)]

    answers = asked(file, pictures, top_k=2)

    for answer, expected in zip(without_what_changes(answers), without_what_changes(served), strict=True):
        assert answer == pytest.approx(expected) if "error" in expected else answer.keys() == expected.keys()
        for field in ("file", "name", "version", "error"):
            assert answer.get(field) == expected.get(field)
        for ours, theirs in zip(answer.get("predictions", []), expected.get("predictions", []), strict=True):
            assert ours["label"] == theirs["label"]
            assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-5)
        if "novelty" in expected:
            assert answer["novelty"] == pytest.approx(expected["novelty"], abs=1e-5)
    assert answers[0].keys() == served[0].keys()


def test_the_limits_of_pictures_hold(store: ModelStore) -> None:
    limits = ImageLimits(max_bytes=1024, max_pixels=1024)
    [answer] = asked(store.folder("colours", 1) / MODEL_FILE, [("large", picture("red", side_px=64))], limits=limits)

    assert "the limit is 1,024" in answer["error"]


def test_a_file_that_is_gone_is_an_answer_of_its_own(store: ModelStore, tmp_path: Path) -> None:
    file = store.folder("colours", 1) / MODEL_FILE
    (tmp_path / "red.png").write_bytes(picture("red"))
    files = [("gone", tmp_path / "gone.png"), ("red", tmp_path / "red.png")]

    gone, red = classify_standalone(file, files, top_k=1, limits=DEFAULT_LIMITS)

    assert gone.error.message == "cannot be read: No such file or directory"
    assert red.response.predictions[0].label == "red"


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"rubbish")

    with pytest.raises(ArtifactError, match=r"model\.onnx: not a whole ONNX file"):
        asked(tmp_path / "model.onnx", PICTURES)


@pytest.mark.parametrize("wanted", ["colours", "colours:1", "a file"])
def test_the_command_takes_a_file_or_a_version_of_a_store_and_prints_what_it_prints_of_a_server(
    wanted: str, store: ModelStore, tmp_path: Path
) -> None:
    publish_tiny(store, sharpness=3.0, promote=False)
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture("blue"))
    file = str(store.folder("colours", 1) / MODEL_FILE) if wanted == "a file" else wanted
    with LiveServer(store) as live:
        served = said(CliRunner().invoke(app, ["classify", str(photo), "--target", live.target]))

    alone = said(CliRunner().invoke(app, ["classify", str(photo), "--file", file, "--store", str(store.root)]))

    assert alone == served
    assert alone.startswith(f"{photo}: blue 1.000  ")


def test_a_name_beside_a_file_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(picture("blue"))
    done = CliRunner().invoke(app, ["classify", str(tmp_path / "photo.png"), "--file", "colours", "--name", "colours"])

    assert done.exit_code == 2
    assert "--file says which model already" in done.output


def said(result: Any) -> str:  # noqa: ANN401 - of typer, which does not export it
    assert result.exit_code == 0, result.output
    return re.sub(r"\d+\.\d ms", "ms", result.stdout)
