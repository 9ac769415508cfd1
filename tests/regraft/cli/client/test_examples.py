from contextlib import closing
from pathlib import Path

import pytest

from regraft.errors import InvalidRequestError
from regraft.label_rules import image_hash
from regraft.stores.examples import open_examples
from tests.live_server import LiveServer
from tests.regraft.cli.client.commands import run, say
from tests.tiny import picture


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
