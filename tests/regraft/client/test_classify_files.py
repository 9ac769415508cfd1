from pathlib import Path

from regraft.client.classify_files import classify_files
from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.tiny import COLOURS, picture


def colours(folder: Path) -> list[tuple[str, Path]]:
    """Write a picture of each colour, and return them with the colours as their ids."""
    files = [(label, folder / f"{label}.png") for label in COLOURS]
    for label, file in files:
        file.write_bytes(picture(label))
    return files


def test_every_file_gets_the_answer_to_its_own_picture(shared: LiveServer, tmp_path: Path) -> None:
    answers = list(classify_files(shared.client, colours(tmp_path), top_k=1))

    assert [answer.id for answer in answers] == list(COLOURS)
    assert [answer.response.predictions[0].label for answer in answers][:3] == ["red", "green", "blue"]


def test_files_that_are_gone_are_answered_in_their_place(shared: LiveServer, tmp_path: Path) -> None:
    red, green, blue, grey = colours(tmp_path)
    gone = [(f"gone {number}", tmp_path / str(number)) for number in range(3)]

    answers = list(classify_files(shared.client, [gone[0], red, gone[1], green, blue, grey, gone[2]]))

    assert [answer.id for answer in answers] == ["gone 0", "red", "gone 1", "green", "blue", "grey", "gone 2"]
    assert {answer.id for answer in answers if answer.HasField("error")} == {"gone 0", "gone 1", "gone 2"}
    assert answers[0].error.message == "cannot be read: No such file or directory"


def test_a_picture_too_large_to_be_sent_costs_no_other_its_answer(store: ModelStore, tmp_path: Path) -> None:
    red, green, blue, grey = colours(tmp_path)
    large = [(f"large {number}", tmp_path / f"large-{number}") for number in range(2)]
    for _, file in large:
        file.write_bytes(bytes(400_000))
    with LiveServer(store, max_image_bytes=2048) as live:
        answers = list(classify_files(live.client, [red, large[0], green, blue, large[1], grey]))

    assert [answer.id for answer in answers] == ["red", "large 0", "green", "blue", "large 1", "grey"]
    assert {answer.id for answer in answers if answer.HasField("error")} == {"large 0", "large 1"}
    assert "the picture is too large to send: 400,007 bytes" in answers[1].error.message


def test_no_files_are_no_answers(shared: LiveServer) -> None:
    assert list(classify_files(shared.client, [])) == []
