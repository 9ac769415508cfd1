import csv
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import InvalidRequestError, RegraftError
from regraft.label_rules import image_hash
from regraft.stores.examples import open_examples
from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.tiny import picture, publish_tiny
from tests.waiting import wait_until


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveServer]:
    store = ModelStore(tmp_path / "store")
    publish_tiny(store)
    with LiveServer(store, keep_requests=1.0) as live:
        yield live


def run(live: LiveServer, *arguments: str, exit_code: int = 0) -> list[Any]:
    """Run a command with --json and return its lines."""
    result = CliRunner().invoke(app, [*arguments, "--target", live.target, "--json"])
    if isinstance(result.exception, RegraftError):
        raise result.exception
    assert result.exit_code == exit_code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def say(live: LiveServer, *arguments: str) -> str:
    """Run a command as a person does."""
    result = CliRunner().invoke(app, [*arguments, "--target", live.target])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two grey pictures and a red one."""
    for label, number in (("grey", 1), ("grey", 2), ("red", 50)):
        file = tmp_path / "photos" / label / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(label, number))
    return tmp_path / "photos"


def test_a_folder_is_labelled_listed_and_exported_again(live: LiveServer, folder: Path, tmp_path: Path) -> None:
    (counts,) = run(live, "label", str(folder))
    listed = run(live, "examples", "list")
    (done,) = run(live, "examples", "export", str(tmp_path / "out"))

    assert (counts["accepted"], counts["rejections"]) == (3, [])
    assert [example["label"] for example in run(live, "examples", "list", "--label", "red")] == ["red"]
    assert done["examples"] == len(listed) == 3
    files = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.png")}
    assert files == {Path(example["label"]) / f"{example['sha256']}.png" for example in listed}
    (again,) = run(live, "label", str(tmp_path / "out" / "examples.csv"))
    assert again["duplicate"] == 3


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


def test_an_example_is_relabelled_and_removed_and_its_history_tells(live: LiveServer, folder: Path) -> None:
    run(live, "label", str(folder))
    sha256 = image_hash(picture("grey", 1))

    (changed,) = run(live, "examples", "relabel", sha256[:12], "silver")
    history = say(live, "examples", "show", sha256)
    (removed,) = run(live, "examples", "remove", sha256, "--why", "blurred")

    assert (changed["label"], removed["label"]) == ("silver", "silver")
    assert history.index("grey") < history.index("silver", history.index("history"))
    assert sha256 not in {example["sha256"] for example in run(live, "examples", "list")}
    assert "2 examples" in say(live, "examples", "list")


def test_what_was_removed_is_shown_as_such_and_comes_back_when_it_is_relabelled(live: LiveServer, folder: Path) -> None:
    run(live, "label", str(folder))
    sha256 = image_hash(picture("grey", 1))
    run(live, "examples", "remove", sha256, "--why", "blurred")

    (shown,) = run(live, "examples", "show", sha256[:12])
    told = say(live, "examples", "show", sha256[:12])
    (back,) = run(live, "examples", "relabel", sha256[:12], "silver")

    assert (shown["sha256"], shown["label"]) == (sha256, "")
    assert [entry["label"] for entry in shown["history"]] == ["grey", ""]
    removal = shown["history"][-1]
    assert f"removed {removal['at']} by {removal['annotator']}: blurred" in " ".join(told.split())
    assert (back["label"], back["source"]) == ("silver", "regraft label")
    assert sha256 in {example["sha256"] for example in run(live, "examples", "list")}


def test_suggestions_can_be_saved_corrected_and_labelled(live: LiveServer, tmp_path: Path) -> None:
    for number in range(4):
        live.client.classify(picture("grey", number))
    wait_until(lambda: live.metric("regraft_kept_requests_total", outcome="kept") == 4)

    found = run(live, "suggest", "--save", str(tmp_path / "todo"))
    with (tmp_path / "todo/suggestions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (counts,) = run(live, "label", str(tmp_path / "todo/suggestions.csv"))

    assert [row["request_id"] for row in rows] == [entry["request_id"] for entry in found]
    assert [row["source"] for row in rows] == [f"suggest:{entry['reason'].lower()}" for entry in found]
    assert {row["source"] for row in rows} >= {"suggest:random"}
    assert all((tmp_path / "todo" / row["file"]).read_bytes() for row in rows)
    assert counts["accepted"] == len(found) > 0


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


def test_nothing_is_exported_into_a_folder_that_has_something(live: LiveServer, folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match="is there already"):
        run(live, "examples", "export", str(folder))


def test_what_is_in_quarantine_is_listed_with_the_reason_and_released(
    live: LiveServer, folder: Path, tmp_path: Path
) -> None:
    run(live, "label", str(folder))
    doubted, name = image_hash(picture("grey", 1)), live.client.list_models()[0].name
    with closing(open_examples(tmp_path / "store")) as examples:
        examples.labels.quarantine(name, {doubted: ("grey", "likely wrong: called grey, read as red (0.98)")})

    assert [entry["sha256"] for entry in run(live, "examples", "list", "--quarantined")] == [doubted]
    shown = say(live, "examples", "list", "--quarantined")
    assert "likely wrong" in shown
    assert "1 in quarantine; `regraft examples release HASH` lets one out" in shown
    assert "in quarantine: likely wrong" in say(live, "examples", "show", doubted[:12])
    assert "is out of quarantine; it is grey" in say(live, "examples", "release", doubted[:12])
    assert "0 in quarantine" in say(live, "examples", "list", "--quarantined")
    assert "in quarantine" not in say(live, "examples", "list")
