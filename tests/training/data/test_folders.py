"""Whatever lies in a folder of labelled pictures is used, or listed under what was left out, or nobody's picture."""

import unicodedata
from pathlib import Path

import pytest

from regraft.datasets.labelled_files import find_labelled
from regraft.errors import DatasetError
from regraft.label_rules import image_hash
from regraft.progress import silent
from training.data.dataset import Dataset, scan
from training.data.find_images import find_images

MOEWE = "Möwe"
MAC = unicodedata.normalize("NFD", MOEWE)
"""The same, as a Mac calls a folder."""


def write(root: Path, *folders: str, count: int = 5) -> Path:
    """Write so many distinct files into each folder."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number}.jpg").write_bytes(f"{folder} {number}".encode())
    return root


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target, target_is_directory=True)


def counts(dataset: Dataset) -> dict[str, int]:
    return {label: sum(image.label == label for image in dataset.images) for label in dataset.labels}


def left_out(dataset: Dataset, root: Path) -> dict[str, str]:
    return {entry.file.relative_to(root).as_posix(): entry.reason for entry in dataset.left_out}


def test_linked_class_folders_and_folders_linked_inside_them_are_used(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", "bees", "more ants")
    root = write(tmp_path / "data", "ants")
    link(root / "bees", elsewhere / "bees")
    link(root / "ants/more", elsewhere / "more ants")

    dataset = scan(root)

    assert counts(dataset) == {"ants": 10, "bees": 5}
    assert dataset.left_out == ()


def test_a_link_that_leads_back_is_left_out_and_ends_nothing(tmp_path: Path) -> None:
    root = write(tmp_path, "ants", "bees")
    link(root / "ants/again", root / "ants")

    dataset = scan(root)

    assert counts(dataset) == {"ants": 5, "bees": 5}
    assert list(left_out(dataset, root)) == ["ants/again"]


def test_broken_links_are_left_out_wherever_they_are(tmp_path: Path) -> None:
    root = write(tmp_path, "train/ants", "train/bees", "val/ants", "val/bees")
    places = ["broken.jpg", "train/broken.jpg", "train/ants/broken.jpg", "val/bees/broken.jpg"]
    for place in places:
        (root / place).symlink_to("gone.jpg")

    reasons = left_out(scan(root), root)

    assert reasons == dict.fromkeys(places, "a link to gone.jpg, which is not there")


def test_folders_beside_train_and_val_are_listed(tmp_path: Path) -> None:
    root = write(tmp_path, "train/ants", "train/bees", "val/ants", "val/bees", "extra/ants", "notes")

    dataset = scan(root)

    assert counts(dataset) == {"ants": 10, "bees": 10}
    assert left_out(dataset, root) == {
        "extra": "lies beside train and val; files in it that take no part: 5",
        "notes": "lies beside train and val; files in it that take no part: 5",
    }


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", ".thumbnails", "$RECYCLE.BIN", "lost+found", "#recycle"])
@pytest.mark.parametrize("place", ["", "train/", "train/ants/", "val/bees/"])
def test_what_other_programs_leave_is_no_class_and_no_picture(name: str, place: str, tmp_path: Path) -> None:
    root = write(tmp_path, "train/ants", "train/bees", "val/ants", "val/bees")
    before = scan(root)

    write(root, f"{place}{name}", f"{place}{name}/photo.jpg")

    assert scan(root) == before


def test_class_folders_of_both_forms_of_a_label_are_one_class(tmp_path: Path) -> None:
    root = write(tmp_path, f"train/{MOEWE}", f"train/{MAC}", "train/ants", f"val/{MAC}", "val/ants")

    dataset = scan(root)

    assert counts(dataset) == {"ants": 10, MOEWE: 15}


def test_lines_of_a_list_in_both_forms_of_a_label_are_of_one_class(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    lines = [f"a/{number}.jpg,{MOEWE if number % 2 else MAC}\nb/{number}.jpg,ants\n" for number in range(5)]
    (tmp_path / "list.csv").write_text("file,label\n" + "".join(lines), encoding="utf-8")

    assert counts(scan(tmp_path / "list.csv")) == {"ants": 5, MOEWE: 5}


def test_a_class_name_that_is_no_label_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="a folder's name is its label"):
        scan(write(tmp_path, "ants", " bees"))


def test_pictures_to_label_are_found_by_the_same_rules(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", "bees")
    root = write(tmp_path / "data", MAC, "@eaDir", f"{MAC}/@eaDir")
    link(root / "bees", elsewhere / "bees")
    (root / "bees/broken.jpg").symlink_to("gone.jpg")

    found = find_labelled(root)

    assert sorted({file.label for file in found.files}) == sorted([MOEWE, "bees"])
    assert len(found.files) == 10
    assert [(bad.place, bad.reason) for bad in found.bad] == [
        (str(root / "bees/broken.jpg"), "a link to gone.jpg, which is not there")
    ]
    assert {file.label for file in find_labelled(root / MAC, MAC).files} == {MOEWE}


def test_the_pictures_of_a_version_are_found_behind_links(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", "bees")
    link(tmp_path / "data/bees", elsewhere / "bees")
    wanted = image_hash(b"bees 3")

    found = find_images([wanted], tmp_path / "data", str(tmp_path / "examples"), silent)

    assert found[wanted].read_bytes() == b"bees 3"
