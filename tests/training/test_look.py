import json
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.errors import DatasetError
from tests.page import Page
from tests.tiny import picture, tiny_backbone
from tests.training.conftest import as_exported
from training.backbones.cache import embedding_cache
from training.data.dataset import scan
from training.data.file_listing import shown_path
from training.look import SHEET, Look, look, page
from training.settings import TrainSettings
from training.strategies.context import Context, SilentListener, Stopwatch
from training.strategies.probe import probe_on

BACKBONE = as_exported(tiny_backbone())


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """A folder as people have them: a copy, a picture under two labels, what is no picture, what lies beside."""
    root = tmp_path / "photos"
    for label in ("red", "blue"):
        (root / label).mkdir(parents=True)
        for number in range(20):
            (root / label / f"{number}.png").write_bytes(picture(label, number, side_px=24 + number))
    (root / "red" / "copy.png").write_bytes(picture("red", 3, side_px=27))
    (root / "red" / "both.png").write_bytes(picture("green"))
    (root / "blue" / "both.png").write_bytes(picture("green"))
    (root / "blue" / "notes.txt").write_text("no picture")
    (root / "blue" / "lost.png").symlink_to(root / "nowhere.png")
    (root / "loose.png").write_bytes(picture("red", 90))
    return root


def with_backbone(data: Path, folder: Path) -> Look:
    with embedding_cache(folder) as cache:
        return look(data, backbone=BACKBONE, cache=cache)


def test_it_counts_each_class_and_says_what_the_files_are(messy: Path) -> None:
    found = look(messy)

    assert [(entry.label, entry.train + entry.holdout, entry.left_out) for entry in found.classes] == [
        ("blue", 20, 3),
        ("red", 20, 2),
    ]
    assert (found.images, found.formats, found.refused) == (40, {"PNG": 40}, "")
    assert (found.short_side_px.least, found.short_side_px.median, found.short_side_px.most) == (24, 33, 43)
    assert found.split == "20% of each class by image hash"
    assert sum(entry.holdout for entry in found.classes) == 8


def test_what_is_left_out_is_named_with_its_reason(messy: Path) -> None:
    reasons = dict(look(messy).left_out)

    assert reasons["red/copy.png"] == "the same picture as red/3.png"
    assert reasons["red/both.png"] == "the same picture under 2 labels: blue, red"
    assert reasons["blue/lost.png"].startswith("a link to ")
    assert reasons["blue/notes.txt"].startswith("not a picture in a format that is read here")
    assert reasons["loose.png"] == "not inside a class folder"
    assert len(reasons) == 6
    assert look(messy).copies == 1


def test_a_training_leaves_out_the_same_files_and_splits_likewise(messy: Path, tmp_path: Path) -> None:
    for number in range(2):  # of which the one is as good as the other
        (messy / "red" / f"like{number}.png").write_bytes(picture("red", 3, side_px=400 + number))
    context = Context(TrainSettings(messy, "colours", tmp_path), tmp_path, tmp_path, SilentListener(), Stopwatch())
    trained = probe_on(BACKBONE, scan(messy), context).dataset

    found = with_backbone(messy, tmp_path)

    assert found.left_out == tuple((shown_path(entry.file, messy), entry.reason) for entry in trained.left_out)
    for entry in found.classes:
        sides = [image.is_holdout for image in trained.images if image.label == entry.label]
        assert (entry.train, entry.holdout) == (sides.count(False), sides.count(True))


def test_a_backbone_finds_near_duplicates(messy: Path, tmp_path: Path) -> None:
    before = with_backbone(messy, tmp_path).near
    (messy / "red" / "like.png").write_bytes(picture("red", 3, side_px=27) + b"\0")  # bytes behind the end of a PNG

    after = with_backbone(messy, tmp_path).near

    assert before is not None
    assert after is not None
    assert after.found > before.found
    assert after.backbone == "tiny"
    assert look(messy).near is None


def test_data_that_a_training_refuses_is_looked_at_all_the_same(tmp_path: Path) -> None:
    for label, count in (("red", 5), ("blue", 1)):
        (tmp_path / label).mkdir()
        for number in range(count):
            (tmp_path / label / f"{number}.png").write_bytes(picture(label, number))

    found = look(tmp_path)

    assert "class 'blue' has 1 usable training image(s), need 2" in found.refused
    assert found.images == 6


def test_data_without_one_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "0.png").write_bytes(b"no picture")

    with pytest.raises(DatasetError, match="no file can be read as an image; the first one: not a picture"):
        look(tmp_path)


def test_a_contact_sheet_is_spread_over_its_class_and_bounded(tmp_path: Path) -> None:
    for label, count in (("red", 100), ("blue", 3)):
        (tmp_path / label).mkdir()
        for number in range(count):
            (tmp_path / label / f"{number:03}.png").write_bytes(picture(label, number))

    sheet = look(tmp_path).sheet

    names = [image.path.name for image in sheet["red"]]
    assert len(names) == SHEET
    assert (names[0], names[-1]) == ("000.png", "099.png")
    assert len(sheet["blue"]) == 3


@pytest.mark.parametrize("seen", [look, lambda data: with_backbone(data, data.parent)], ids=["alone", "by a backbone"])
def test_the_page_shows_pictures_of_each_class_and_needs_no_other_file(
    seen: Callable[[Path], Look], messy: Path
) -> None:
    html = Page(page(seen(messy)))

    assert len(html.values("src")) == 40
    assert all(source.startswith("data:image/jpeg;base64,") for source in html.values("src"))
    assert "script" not in html.tags
    assert "the same picture under 2 labels: blue, red" in html.text
    assert ("Near-duplicates" in html.text) == (seen is not look)


def test_the_result_is_plain_json(messy: Path, tmp_path: Path) -> None:
    found = json.loads(json.dumps(with_backbone(messy, tmp_path).to_dict(), allow_nan=False))

    assert {"file": "loose.png", "reason": "not inside a class folder"} in found["left_out"]
    assert found["near"]["backbone"] == "tiny"
    assert found["classes"][0]["label"] == "blue"
