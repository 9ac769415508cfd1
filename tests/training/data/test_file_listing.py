import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from regraft.errors import DatasetError, InvalidRequestError
from regraft.label_rules import image_hash
from training.data.dataset import Dataset, LabelledImage, check_trainable, scan


def write(root: Path, files: Sequence[str]) -> Path:
    """Write files, each with its own name as content."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def listed(root: Path, rows: Sequence[Mapping[str, object]], name: str = "list.csv") -> Path:
    """Write the files of a list, and the list."""
    write(root, [str(row["file"]) for row in rows])
    with (root / name).open("w", newline="") as file:
        if name.endswith(".jsonl"):
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]), restval="")
            writer.writeheader()
            writer.writerows(rows)
    return root / name


def rows_of(count: int, **columns: object) -> list[dict[str, object]]:
    """Return so many pictures of each of two classes."""
    return [
        {"file": f"pictures/{label}{number}.jpg", "label": label, **columns}
        for label in ("cat", "dog")
        for number in range(count)
    ]


def picture_of(dataset: Dataset, name: str) -> LabelledImage:
    (found,) = (image for image in dataset.images if image.sha256 == image_hash(name.encode()))
    return found


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_list_without_a_split_is_split_by_hash_like_a_folder(tmp_path: Path, name: str) -> None:
    dataset = scan(listed(tmp_path, rows_of(10), name))

    assert dataset.labels == ("cat", "dog")
    assert sum(image.is_holdout for image in dataset.images) == 4
    assert dataset.how_split == "20% of each class by image hash"
    check_trainable(dataset, tmp_path / name)


# Columns: the names of the splits, and which of them are held out.
SPLITS = {
    "train and test": (["train", "test"], ["test"]),
    "capitals": (["TRAIN", "Val"], ["Val"]),
    "three": (["training", "validation", "testing"], ["testing"]),
    "dev": (["train", "dev"], ["dev"]),
}


@pytest.mark.parametrize(("splits", "holdout"), SPLITS.values(), ids=SPLITS)
def test_the_split_of_a_list_is_taken_as_it_is(tmp_path: Path, splits: list[str], holdout: list[str]) -> None:
    rows = [{**row, "Subset": splits[number % len(splits)]} for number, row in enumerate(rows_of(6))]

    dataset = scan(listed(tmp_path, rows))

    for row in rows:
        assert picture_of(dataset, str(row["file"])).is_holdout == (row["Subset"] in holdout)
    assert dataset.how_split.endswith(f"holdout {holdout[0].lower()}")


def test_a_misspelt_split_is_a_bad_line_and_never_trained_on(tmp_path: Path) -> None:
    rows = [{**row, "split": "val" if number % 3 == 0 else "train"} for number, row in enumerate(rows_of(6))]
    rows[4]["split"] = "tset"

    dataset = scan(listed(tmp_path, rows))

    assert len(dataset.images) == 11
    assert [entry.reason for entry in dataset.left_out] == [
        "line 6: split 'tset': need train, val or test, as other lines say"
    ]


def test_numbers_of_folds_are_no_split_which_is_said(tmp_path: Path) -> None:
    rows = [{**row, "fold": number % 5} for number, row in enumerate(rows_of(10))]

    dataset = scan(listed(tmp_path, rows))

    assert dataset.how_split == "20% of each class by image hash"
    assert dataset.notes == ("The split is not taken from list.csv: '0' and the like are neither train, val nor test.",)


def test_groups_sources_and_weights_come_from_the_list(tmp_path: Path) -> None:
    rows = rows_of(3)
    rows[0] |= {"patient_id": 7, "source": "ward 3", "weight": 0.25}

    found = picture_of(scan(listed(tmp_path, rows, "list.jsonl")), "pictures/cat0.jpg")

    assert (found.group_names, found.source, found.weight) == (("7",), "ward 3", 0.25)


def test_bad_lines_are_left_out_by_their_number_and_the_rest_is_trained_on(tmp_path: Path) -> None:
    path = listed(tmp_path, rows_of(5))
    with path.open("a") as file:
        file.write("nowhere.jpg,cat\npictures/cat0.jpg,\npictures/cat1.jpg,a/b\npictures/dog1.jpg,dog,more\n")

    dataset = scan(path)

    assert len(dataset.images) == 10
    reasons = {entry.reason.split(":")[0]: entry.reason for entry in dataset.left_out}
    assert "there is no file" in reasons["line 12"]
    assert "must not be empty" in reasons["line 13"]
    assert "path separators" in reasons["line 14"]
    assert "more fields" in reasons["line 15"]
    assert {entry.name for entry in dataset.left_out} == {str(path)}


def test_columns_that_were_not_used_are_named(tmp_path: Path) -> None:
    dataset = scan(listed(tmp_path, rows_of(5, gruop="p1", width=500)))

    assert dataset.notes == ("Columns of list.csv that were not used: gruop, width.",)


def test_a_list_that_labels_nothing_is_refused_by_its_first_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"list\.csv: no line can be trained on; the first: line 2: label: must not"):
        scan(listed(tmp_path, rows_of(2, label="")))


def test_a_class_that_is_too_small_is_named_with_the_lines_that_it_lost(tmp_path: Path) -> None:
    rows = rows_of(4)
    path = listed(tmp_path, [*rows, {"file": "pictures/1.jpg", "label": "emu"}])
    (tmp_path / "pictures/1.jpg").unlink()
    (tmp_path / "pictures/1.jpg").symlink_to("/proc/self/mem")

    with pytest.raises(DatasetError, match=r"class 'emu' has 0 usable .*\n.*1\.jpg: cannot be read"):
        check_trainable(scan(path), path)


PATIENTS = [f"{label}/patient_{number:02}_{shot}.jpg" for label in "ab" for number in range(10) for shot in range(3)]


def test_a_pattern_keeps_the_pictures_of_a_patient_on_one_side(tmp_path: Path) -> None:
    dataset = scan(write(tmp_path, PATIENTS), group_by=r"patient_(\d+)")

    sides: dict[str, set[bool]] = {}
    for image in dataset.images:
        sides.setdefault(image.path.name[:10], set()).add(image.is_holdout)
    assert len({image.group for image in dataset.images}) == 10
    assert all(len(side) == 1 for side in sides.values())
    assert sum(image.is_holdout for image in dataset.images) == 12
    assert dataset.notes == ()


def test_a_pattern_without_a_group_groups_by_all_that_fits(tmp_path: Path) -> None:
    assert len({image.group for image in scan(write(tmp_path, PATIENTS), group_by=r"patient_\d").images}) == 1


def test_a_patient_on_both_sides_of_a_given_split_is_judged_by_and_not_trained_on(tmp_path: Path) -> None:
    files = [f"{side}/{label}/p{patient}_{shot}.jpg" for label in "ab" for shot in range(3) for side, patient in SIDES]

    dataset = scan(write(tmp_path, files), group_by=r"(p\d)_")

    assert {image.path.name[:2] for image in dataset.images if not image.is_holdout} == {"p0", "p1"}
    assert {image.path.name[:2] for image in dataset.images if image.is_holdout} == {"p2", "p3"}
    assert {entry.file.name[:2] for entry in dataset.left_out} == {"p2"}
    assert "which is held out: both are of group 'p2'" in dataset.left_out[0].reason
    assert str(tmp_path / "val") in dataset.left_out[0].reason


SIDES = [("train", 0), ("train", 1), ("train", 2), ("val", 2), ("val", 3)]


def test_parent_keeps_the_pictures_of_a_folder_together_and_those_right_inside_the_class_apart(tmp_path: Path) -> None:
    files = [f"{label}/burst{burst}/{shot}.jpg" for label in "ab" for burst in range(5) for shot in range(4)]

    dataset = scan(write(tmp_path, [*files, "a/1.jpg", "a/2.jpg"]), group_by="parent")

    groups = {
        image.path.parent: {other.group for other in dataset.images if other.path.parent == image.path.parent}
        for image in dataset.images
    }
    assert {folder.name: len(found) for folder, found in groups.items()} == {
        **{f"burst{burst}": 1 for burst in range(5)},
        "a": 2,
    }
    assert dataset.notes == ("--group-by fits 40 of 42 paths; the others belong to no group.",)


def test_a_list_is_grouped_by_its_own_names_and_by_a_pattern_together(tmp_path: Path) -> None:
    rows = [
        {"file": f"{label}/{n}_{n // 2}.jpg", "label": label, "group": f"{label}{(n + 1) // 2}"}
        for label in "ab"
        for n in range(6)
    ]

    dataset = scan(listed(tmp_path, rows), group_by=r"([ab]/)\d_")

    assert len({image.group for image in dataset.images}) == 2


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("(", r"--group-by: '\(' is no regular expression"),
        (r"visit_(\d)", r"--group-by: 'visit_\(\\\\d\)' fits none of 60 paths; the first is a/patient_00_0.jpg"),
        ("parent", "--group-by: 'parent' fits none of 60 paths"),
    ],
)
def test_a_pattern_that_is_none_or_fits_nothing_is_refused(tmp_path: Path, pattern: str, complaint: str) -> None:
    with pytest.raises(InvalidRequestError, match=complaint):
        scan(write(tmp_path, PATIENTS), group_by=pattern)


def test_a_copy_brings_the_names_of_its_groups_along(tmp_path: Path) -> None:
    rows = [{**row, "group": f"p{number}"} for number, row in enumerate(rows_of(5))]
    path = listed(tmp_path, [*rows, {"file": "pictures/copy.jpg", "label": "cat", "group": "p1"}])
    (tmp_path / "pictures/copy.jpg").write_bytes(b"pictures/cat0.jpg")

    dataset = scan(path)

    assert picture_of(dataset, "pictures/cat0.jpg").group == picture_of(dataset, "pictures/cat1.jpg").group
