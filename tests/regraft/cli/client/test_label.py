import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import InvalidRequestError, RegraftError
from regraft.label_rules import image_hash
from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.regraft.cli.client.commands import run, say
from tests.tiny import picture, publish_tiny
from tests.waiting import wait_until


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_list_says_who_labelled_what(live: LiveServer, folder: Path, kind: str) -> None:
    row = {"file": "grey/1.png", "label": "grey", "source": "a camera", "annotator": "ada", "request_id": "r1"}
    row["group"] = "patient 7"
    rows = [row, {"file": "red/50.png", "label": "red"}]
    path = folder / f"list.{kind}"
    with path.open("w", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, list(row), restval="")
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    (counts,) = run(live, "label", str(path))
    (shown,) = run(live, "examples", "show", image_hash(picture("grey", 1))[:12])

    assert counts["accepted"] == 2
    assert (shown["label"], shown["source"], shown["group"]) == ("grey", "a camera", "patient 7")
    assert [(entry["annotator"], entry["request_id"]) for entry in shown["history"]] == [("ada", "r1")]


# Columns: the file's name, what is in it, and what the complaint must say.
BAD_LISTS = {
    "no such file": ("a.csv", "file,label\nnowhere.png,red\n", "a.csv, line 2: there is no file"),
    "neither file nor request": ("a.csv", "file,label\n,red\n", "line 2: names neither a file nor a request_id"),
    "no column of files": ("a.csv", "name,label\nx,red\n", "line 2: names neither a file .* columns: 'name', 'label'"),
    "too many fields": ("a.csv", "file,label\nx,red,blue\n", "line 2: has more fields than the first line names"),
    "empty": ("a.csv", "", "names no pictures"),
    "not UTF-8": ("a.csv", b"file,label\n\xff\xfe,red\n", "line 2: there is no file"),
    "no Parquet": ("a.parquet", "file,label\n", "a.parquet: cannot be read"),
    "no JSON": ("a.jsonl", '{"file": "x", "label": "red"\n', "a.jsonl, line 1: is no JSON"),
    "no object": ("a.jsonl", "[1]\n", "line 1: is no object with a file and a label"),
    "no text": ("a.jsonl", '{"file": "x", "label": ["red"]}\n', "line 1: label is no text"),
}


@pytest.mark.parametrize(("name", "text", "complaint"), BAD_LISTS.values(), ids=BAD_LISTS.keys())
def test_a_list_that_makes_no_sense_is_refused_by_its_line(
    live: LiveServer, tmp_path: Path, name: str, text: str | bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(InvalidRequestError, match=complaint):
        run(live, "label", str(tmp_path / name))

    assert run(live, "examples", "list") == []


def test_a_bad_line_is_rejected_by_its_number_and_the_others_are_kept(live: LiveServer, folder: Path) -> None:
    (folder / "list.csv").write_text("Image;Class\ngrey/1.png;grey\nnowhere.png;red\nred/50.png;red;1\n")

    (counts,) = run(live, "label", str(folder / "list.csv"), exit_code=1)

    assert (counts["accepted"], counts["rejected"]) == (1, 2)
    assert [(entry["file"], entry["reason"].split(" /")[0]) for entry in counts["rejections"]] == [
        ("line 3", "there is no file"),
        ("line 4", "has more fields than the first line names"),
    ]


def test_bad_labels_in_a_list_are_rejected_one_by_one(live: LiveServer, folder: Path) -> None:
    lines = [
        {"file": "grey/1.png", "label": label}
        for label in ("", "x" * 10_000, "a\0b", "../up", "\ud800", "grey", "silver")
    ]
    (folder / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    (counts,) = run(live, "label", str(folder / "list.jsonl"), exit_code=1)

    assert {key: count for key, count in counts.items() if key != "rejections"} == {
        "accepted": 1,
        "duplicate": 0,
        "relabelled": 0,
        "conflicting": 1,
        "rejected": 5,
    }
    assert len(counts["rejections"]) == 6


def test_a_kept_request_is_labelled_by_its_id(live: LiveServer) -> None:
    request_id = live.client.classify(picture("grey", 1)).request_id
    wait_until(lambda: live.metric("regraft_kept_requests_total", outcome="kept") == 1)

    assert "label one: regraft label --request" in say(live, "suggest")
    (counts,) = run(live, "label", "--request", request_id, "--label", "grey")

    assert counts["accepted"] == 1
    assert "nothing to suggest" in say(live, "suggest")


@pytest.mark.parametrize("arguments", [["--request", "r1"], [], ["photos", "--request", "r1", "--label", "red"]])
def test_what_to_label_has_to_be_said_in_one_way(live: LiveServer, arguments: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match="--request"):
        run(live, "label", *arguments)


BEYOND_ANY_MESSAGE = bytes(400_000)
"""Of a server whose largest picture has 2 kB."""


def test_what_cannot_be_sent_is_rejected_by_its_name_and_the_others_are_kept(tmp_path: Path, folder: Path) -> None:
    (folder / "red/far too large.png").write_bytes(BEYOND_ANY_MESSAGE)
    (folder / "red/too large.png").write_bytes(bytes(3000))
    (folder / "red/unreadable.png").symlink_to("/proc/self/mem")
    publish_tiny(store := ModelStore(tmp_path / "store"))

    with LiveServer(store, max_image_bytes=2048) as live:
        (counts,) = run(live, "label", str(folder), exit_code=1)
        listed = run(live, "examples", "list")
        people = CliRunner().invoke(app, ["label", str(folder), "--target", live.target])

    assert {outcome: count for outcome, count in counts.items() if count and outcome != "rejections"} == {
        "accepted": 3,
        "rejected": 3,
    }
    reasons = {Path(entry["file"]).name: entry["reason"] for entry in counts["rejections"]}
    assert "too large to send: 400," in reasons["far too large.png"]
    assert reasons["too large.png"] == "the image has 3,000 bytes; the limit is 2,048"
    assert reasons["unreadable.png"].startswith("cannot be read: ")
    assert len(listed) == 3
    assert people.exit_code == 1
    assert "3 duplicate, 3 rejected" in people.stdout
    assert "unreadable.png: cannot be read" in people.stdout.replace("\n", "")


@pytest.mark.parametrize("as_json", [True, False])
def test_what_was_acknowledged_before_an_error_is_counted(tmp_path: Path, folder: Path, as_json: bool) -> None:
    (folder / "grey/0.png").write_bytes(picture("grey", 0, side_px=32))  # the largest: it goes first
    publish_tiny(store := ModelStore(tmp_path / "store"))
    images = store.root / ".examples" / "images"
    images.mkdir(parents=True)
    for file in folder.glob("*/*.png"):
        if file.name != "0.png":
            (images / image_hash(file.read_bytes())[:2]).write_text("in the way")

    with LiveServer(store) as live:
        result = CliRunner().invoke(app, ["label", str(folder), "--target", live.target, *["--json"] * as_json])

    assert isinstance(result.exception, RegraftError)
    if as_json:
        counts = json.loads(result.stdout)
        assert (counts["accepted"], counts["unanswered"]) == (1, 3)
    else:
        assert "1 accepted, 3 unanswered" in result.stdout
