import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import InvalidRequestError
from regraft.label_rules import image_hash
from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.regraft.cli.client.commands import run, say
from tests.tiny import picture, publish_tiny


def test_pictures_of_folders_files_and_archives_are_sent_listed_labelled_and_removed(
    live: LiveServer, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "one.png").write_bytes(picture("blue"))
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("a/green.png", picture("green"))
        archive.writestr("__MACOSX/._green.png", b"what Macs add")
        archive.writestr("notes.txt", b"no picture")
    paths = [str(folder), str(tmp_path / "one.png"), str(tmp_path / "more.zip")]

    (counts,) = run(live, "pictures", "add", *paths, "--source", "a camera", exit_code=1)

    assert (counts["accepted"], counts["rejected"]) == (5, 1)
    assert [each["file"] for each in counts["rejections"]] == [f"{tmp_path / 'more.zip'}/notes.txt"]
    assert run(live, "pictures", "add", str(tmp_path / "one.png"))[0]["duplicate"] == 1

    hashes = [each["sha256"] for each in run(live, "pictures", "list")]
    assert set(hashes) == {
        image_hash(picture(*of)) for of in (("grey", 1), ("grey", 2), ("red", 50), ("blue",), ("green",))
    }
    assert "5 pictures without a label of at most 10,000" in say(live, "pictures", "list")

    (labelled,) = run(live, "label", "--sha256", image_hash(picture("blue")), "--label", "blue")
    assert labelled["accepted"] == 1
    (removed,) = run(live, "pictures", "remove", image_hash(picture("green")), image_hash(picture("blue")))
    assert removed["removed"] == [image_hash(picture("green"))]
    assert len(run(live, "pictures", "list")) == 3


def test_when_there_is_no_room_left_the_command_says_so_once_and_ends(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    publish_tiny(store)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(60):
        (photos / f"{number}.png").write_bytes(picture("grey", number))
    with LiveServer(store, pool_most=1) as live:
        result = CliRunner().invoke(app, ["pictures", "add", str(photos), "--target", live.target])

        assert result.exit_code == 1
        assert result.stdout.count("label some, or remove them") == 1
        assert "1 accepted, 59 full" in result.stdout


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("nowhere", None, "nowhere: there is no such file or folder"),
        ("empty", "", "empty: there are no files in it"),
        ("cut.zip", b"PK\x03\x04" + bytes(40), "1 rejected"),
    ],
)
def test_what_has_no_pictures_is_refused_by_its_name(
    live: LiveServer, tmp_path: Path, name: str, data: bytes | str | None, complaint: str
) -> None:
    if isinstance(data, bytes):
        (tmp_path / name).write_bytes(data)
        (counts,) = run(live, "pictures", "add", str(tmp_path / name), exit_code=1)
        assert complaint == f"{counts['rejected']} rejected"
        return
    if data is not None:
        (tmp_path / name).mkdir()
    with pytest.raises(InvalidRequestError, match=complaint):
        run(live, "pictures", "add", str(tmp_path / name))
