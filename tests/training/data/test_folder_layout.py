from collections.abc import Mapping
from pathlib import Path

import pytest

from regraft.errors import DatasetError
from training.data.dataset import Dataset, scan


def pictures(*folders: str, classes: tuple[str, ...] = ("cats", "dogs"), count: int = 3) -> dict[str, bytes]:
    """Return so many distinct files of each class in each folder."""
    names = [f"{folder}/{label}/{number}.jpg" for folder in folders for label in classes for number in range(count)]
    return {name: name.encode() for name in names}


def write(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def folders_of(dataset: Dataset, root: Path, *, holdout: bool) -> set[str]:
    """Return the folders of the class folders of one side."""
    held = (image for image in dataset.images if image.is_holdout == holdout)
    return {image.path.relative_to(root).parents[1].as_posix() for image in held}


# Columns: the folders that hold class folders, those of them that are trained on, those that are held out.
LAYOUTS = {
    "capitals": (["Train", "Val"], ["Train"], ["Val"]),
    "all capitals": (["TRAIN", "TEST"], ["TRAIN"], ["TEST"]),
    "training and testing": (["Training", "Testing"], ["Training"], ["Testing"]),
    "train and dev": (["train", "dev"], ["train"], ["dev"]),
    "train and eval": (["train", "eval"], ["train"], ["eval"]),
    "training, validation and eval": (["training", "validation", "eval"], ["training", "validation"], ["eval"]),
    "below images": (["images/train", "images/val"], ["images/train"], ["images/val"]),
    "below Images": (["Images/Train", "Images/Test"], ["Images/Train"], ["Images/Test"]),
    "above images": (["train/images", "test/images"], ["train/images"], ["test/images"]),
    "above images on one side": (["train/images", "valid"], ["train/images"], ["valid"]),
    "two of a kind": (["train", "val", "validation"], ["train"], ["val", "validation"]),
}


@pytest.mark.parametrize(("folders", "train", "holdout"), LAYOUTS.values(), ids=LAYOUTS)
def test_common_names_of_a_split_are_known_in_any_case(
    tmp_path: Path, folders: list[str], train: list[str], holdout: list[str]
) -> None:
    dataset = scan(write(tmp_path, pictures(*folders)))

    assert dataset.labels == ("cats", "dogs")
    assert folders_of(dataset, tmp_path, holdout=False) == set(train)
    assert folders_of(dataset, tmp_path, holdout=True) == set(holdout)
    first, *tune = train  # a val beside a test stops and tunes
    by = f"; stop and tune by {', '.join(tune)}" if tune else ""
    assert dataset.how_split == f"folders: train on {first}{by}; holdout {', '.join(holdout)}"
    assert dataset.left_out == ()


def test_class_folders_below_images_alone_are_the_classes(tmp_path: Path) -> None:
    dataset = scan(write(tmp_path, pictures("images", count=10)))

    assert dataset.labels == ("cats", "dogs")
    assert dataset.how_split == "20% of each class by image hash"


def test_what_lies_beside_images_is_not_looked_into_and_said(tmp_path: Path) -> None:
    dataset = scan(write(tmp_path, pictures("images/train", "images/val") | {"labels/train/1.txt": b"0 0.5"}))

    assert dataset.labels == ("cats", "dogs")
    assert [(entry.file, entry.reason) for entry in dataset.left_out] == [
        (tmp_path / "labels", "lies beside images; files in it that take no part: 1")
    ]


def test_a_class_may_be_called_images(tmp_path: Path) -> None:
    files = pictures("", classes=("images", "drawings"), count=5) | {"images/deep/1.jpg": b"deep"}

    assert scan(write(tmp_path, {name.lstrip("/"): data for name, data in files.items()})).labels == (
        "drawings",
        "images",
    )


# Columns: the files of the holdout folder, and what it is called.
UNLABELLED: dict[str, tuple[dict[str, bytes], str]] = {
    "pictures without folders": ({"test/1.jpg": b"1", "test/2.jpg": b"2"}, "test"),
    "pictures in images": ({"Test/images/1.jpg": b"1"}, "Test"),
    "pictures in a folder of its name": ({"test/test/1.jpg": b"1"}, "test"),
    "pictures of unknown class": ({"test/unknown/1.jpg": b"1"}, "test"),
    "empty class folders": ({"val/cats/.keep": b""}, "val"),
}


@pytest.mark.parametrize(("files", "name"), UNLABELLED.values(), ids=UNLABELLED)
def test_a_holdout_folder_without_labels_falls_back_to_a_split_by_hash_and_says_so(
    tmp_path: Path, files: dict[str, bytes], name: str
) -> None:
    dataset = scan(write(tmp_path, pictures("train", count=10) | files))

    assert dataset.labels == ("cats", "dogs")
    assert sum(image.is_holdout for image in dataset.images) == 4
    assert dataset.how_split == f"20% of each class by image hash; {name} has no labelled pictures"
    assert "has no labelled pictures" in [entry.reason for entry in dataset.left_out if name in str(entry.file)]


def test_val_is_held_out_where_test_has_no_labels(tmp_path: Path) -> None:
    dataset = scan(write(tmp_path, pictures("train", "val") | {"test/1.jpg": b"1"}))

    assert dataset.how_split == "folders: train on train; holdout val; test has no labelled pictures"
    assert folders_of(dataset, tmp_path, holdout=True) == {"val"}


# Columns: the folders that hold the same class folders, and the layout that must be named.
NESTED = {
    "folds": (["fold1", "fold2", "fold3"], "fold1, fold2, fold3 hold the same folders (cats, dogs): meant is"),
    "other names of a split": (["train_set", "test_set"], "train/cats and "),
    "a misspelt holdout": (["train", "tset"], "is no val or test: train on"),
    "train and numbers": (["train", "test1"], "is no val or test: train on"),
}


@pytest.mark.parametrize(("folders", "complaint"), NESTED.values(), ids=NESTED)
def test_classes_that_hold_the_same_class_folders_are_refused_with_the_layout_that_was_meant(
    tmp_path: Path, folders: list[str], complaint: str
) -> None:
    with pytest.raises(DatasetError) as error:
        scan(write(tmp_path, pictures(*folders)))

    assert complaint in str(error.value)
    assert str(error.value).endswith(
        "if the folders inside are sessions or patients of each class, add --group-by parent"
    )


def test_a_split_below_the_classes_is_refused_with_the_split_above_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"the split goes above the classes: {tmp_path}/train/cats"):
        scan(write(tmp_path, pictures("cats", "dogs", classes=("train", "val"))))


def test_folders_that_are_said_to_be_groups_are_no_classes(tmp_path: Path) -> None:
    dataset = scan(
        write(tmp_path, pictures("cats", "dogs", classes=("monday", "tuesday", "friday"))), group_by="parent"
    )

    assert dataset.labels == ("cats", "dogs")
    assert len({image.group for image in dataset.images}) == 6


def test_classes_with_folders_of_their_own_are_classes(tmp_path: Path) -> None:
    files = pictures("cats", classes=("tabby", "persian")) | pictures("dogs", classes=("pug", "beagle"))

    assert scan(write(tmp_path, files)).labels == ("cats", "dogs")
