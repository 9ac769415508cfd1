import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from regraft.errors import DatasetError
from regraft.label_rules import image_hash
from tests.tiny import picture
from training.data.dataset import Dataset, check_trainable, scan


def content(label: str, number: int) -> bytes:
    return f"picture {number} of {label}".encode()


def write(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def numbered(folder: str, count: int, first: int = 0) -> dict[str, bytes]:
    """Return so many distinct files in a class folder."""
    return {f"{folder}/{number}.jpg": content(folder, number) for number in range(first, first + count)}


def held_out(dataset: Dataset, label: str) -> int:
    return sum(image.is_holdout for image in dataset.images if image.label == label)


def reasons(dataset: Dataset, root: Path) -> dict[str, str]:
    return {str(entry.file.relative_to(root)): entry.reason for entry in dataset.left_out}


# Columns: images of the class, how many of them are holdout.
SHARES = [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (7, 1), (8, 2), (10, 2), (12, 2), (13, 3), (50, 10), (97, 19)]


@pytest.mark.parametrize(("images", "holdout"), SHARES)
def test_a_fifth_of_each_class_is_held_out_where_the_folder_has_no_split(
    tmp_path: Path, images: int, holdout: int
) -> None:
    dataset = scan(write(tmp_path, numbered("cats", images) | numbered("dogs", 20)))

    assert held_out(dataset, "cats") == holdout
    assert held_out(dataset, "dogs") == 4
    assert Counter(image.label for image in dataset.images) == {"cats": images, "dogs": 20}
    assert dataset.labels == ("cats", "dogs")
    assert dataset.left_out == ()
    assert dataset.split == "20% of each class by image hash"


@settings(max_examples=25)
@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1))
def test_the_holdout_is_stratified_whatever_the_sizes_of_the_classes(sizes: dict[str, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = scan(
            write(Path(folder), {name: data for label, n in sizes.items() for name, data in numbered(label, n).items()})
        )

    for label, count in sizes.items():
        expected = 0 if count <= 2 else max(1, round(count / 5))
        assert held_out(dataset, label) == expected


def test_the_split_does_not_depend_on_file_names_or_their_order(tmp_path: Path) -> None:
    pictures = [content("cats", number) for number in range(30)]
    one = write(tmp_path / "one", {f"cats/{10 + number}.jpg": data for number, data in enumerate(pictures)})
    other = write(tmp_path / "other", {f"cats/deep/{99 - number}.png": data for number, data in enumerate(pictures)})

    first, second = scan(one), scan(other)

    assert {(i.sha256, i.label, i.is_holdout) for i in first.images} == {
        (i.sha256, i.label, i.is_holdout) for i in second.images
    }
    assert held_out(first, "cats") == 6


def test_a_holdout_image_stays_holdout_when_images_with_higher_hashes_join_the_class(tmp_path: Path) -> None:
    pictures = sorted((content("cats", number) for number in range(25)), key=image_hash)
    before = scan(write(tmp_path, {f"cats/{99 - number}.jpg": data for number, data in enumerate(pictures[:20])}))

    after = scan(write(tmp_path, {f"cats/{99 - number}.jpg": data for number, data in enumerate(pictures)}))

    assert {i.sha256 for i in before.images if i.is_holdout} <= {i.sha256 for i in after.images if i.is_holdout}
    assert (held_out(before, "cats"), held_out(after, "cats")) == (4, 5)


# Columns: the folders that hold class folders, those of them that are trained on, the holdout.
LAYOUTS = {
    "train and val": (["train", "val"], ["train"], "val"),
    "train and valid": (["train", "valid"], ["train"], "valid"),
    "train and validation": (["train", "validation"], ["train"], "validation"),
    "train and test": (["train", "test"], ["train"], "test"),
    "train, val and test": (["train", "val", "test"], ["train", "val"], "test"),
    "train, valid and test": (["train", "valid", "test"], ["train", "valid"], "test"),
}


@pytest.mark.parametrize(("folders", "train", "holdout"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_folder_that_is_split_is_taken_as_it_is(
    tmp_path: Path, folders: list[str], train: list[str], holdout: str
) -> None:
    for folder in folders:
        write(tmp_path, numbered(f"{folder}/cats", 3) | numbered(f"{folder}/dogs", 2))

    dataset = scan(tmp_path)

    assert dataset.labels == ("cats", "dogs")
    assert {i.path.relative_to(tmp_path).parts[0] for i in dataset.images if not i.is_holdout} == set(train)
    assert {i.path.relative_to(tmp_path).parts[0] for i in dataset.images if i.is_holdout} == {holdout}
    assert len(dataset.images) == 5 * len(folders)
    first, *tune = train  # a val beside a test stops and tunes
    by = f"; stop and tune by {', '.join(tune)}" if tune else ""
    assert dataset.split == f"folders: train on {first}{by}; holdout {holdout}"
    check_trainable(dataset, tmp_path)


@pytest.mark.parametrize("lonely", ["train", "val", "test"])
def test_a_folder_called_like_a_split_is_a_class_where_the_other_half_is_missing(tmp_path: Path, lonely: str) -> None:
    dataset = scan(write(tmp_path, numbered(lonely, 5) | numbered("trucks", 5)))

    assert dataset.labels == tuple(sorted([lonely, "trucks"]))
    assert dataset.split == "20% of each class by image hash"


def test_images_in_folders_below_a_class_folder_belong_to_the_class(tmp_path: Path) -> None:
    dataset = scan(write(tmp_path, {"cats/tabby/young/1.jpg": b"1", "cats/2.jpg": b"2", "dogs/3.jpg": b"3"}))

    assert {(image.path.name, image.label) for image in dataset.images} == {
        ("1.jpg", "cats"),
        ("2.jpg", "cats"),
        ("3.jpg", "dogs"),
    }


def test_a_picture_in_both_splits_is_held_out_and_never_trained_on(tmp_path: Path) -> None:
    files = numbered("train/cats", 3) | numbered("val/cats", 1) | {"train/cats/again.jpg": b"x", "val/cats/x.jpg": b"x"}

    dataset = scan(write(tmp_path, files))

    (kept,) = (image for image in dataset.images if image.sha256 == image_hash(b"x"))
    assert kept.path == tmp_path / "val/cats/x.jpg"
    assert kept.is_holdout
    assert reasons(dataset, tmp_path) == {"train/cats/again.jpg": "the same picture as val/cats/x.jpg"}


def test_a_picture_twice_in_a_class_counts_once(tmp_path: Path) -> None:
    files = numbered("cats", 2) | {"cats/a.jpg": b"x", "cats/b.jpg": b"x", "cats/deep/c.jpg": b"x"}

    dataset = scan(write(tmp_path, files))

    assert Counter(image.sha256 for image in dataset.images)[image_hash(b"x")] == 1
    assert reasons(dataset, tmp_path) == {
        "cats/b.jpg": "the same picture as cats/a.jpg",
        "cats/deep/c.jpg": "the same picture as cats/a.jpg",
    }


def test_a_picture_under_two_labels_is_left_out_altogether(tmp_path: Path) -> None:
    files = numbered("cats", 3) | numbered("dogs", 3) | {"cats/x.jpg": b"x", "dogs/x.jpg": b"x", "dogs/y.jpg": b"x"}

    dataset = scan(write(tmp_path, files))

    assert image_hash(b"x") not in {image.sha256 for image in dataset.images}
    assert reasons(dataset, tmp_path) == dict.fromkeys(
        ("cats/x.jpg", "dogs/x.jpg", "dogs/y.jpg"), "the same picture under 2 labels: cats, dogs"
    )


def test_a_picture_under_two_labels_in_two_splits_is_left_out_altogether(tmp_path: Path) -> None:
    files = numbered("train/cats", 3) | numbered("val/dogs", 3) | {"train/cats/x.jpg": b"x", "val/dogs/x.jpg": b"x"}

    dataset = scan(write(tmp_path, files))

    assert image_hash(b"x") not in {image.sha256 for image in dataset.images}
    assert len(dataset.left_out) == 2


def test_files_outside_of_class_folders_are_left_out_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, numbered("train/cats", 2) | numbered("val/cats", 2) | {"readme.txt": b"", "train/stray.jpg": b"s"})

    dataset = scan(tmp_path)

    assert reasons(dataset, tmp_path) == dict.fromkeys(("readme.txt", "train/stray.jpg"), "not inside a class folder")


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    hidden = {".DS_Store": b"", "cats/.DS_Store": b"", "cats/.thumbs.db": b"", ".git/config": b"", ".cache/1.jpg": b"1"}

    dataset = scan(write(tmp_path, numbered("cats", 3) | numbered("dogs", 3) | hidden))

    assert dataset.labels == ("cats", "dogs")
    assert len(dataset.images) == 6
    assert dataset.left_out == ()


def test_hidden_folders_inside_a_class_are_passed_over(tmp_path: Path) -> None:
    hidden = {"cats/.ipynb_checkpoints/0-checkpoint.jpg": b"1", "cats/.thumbnails/large/1.jpg": b"2"}

    dataset = scan(write(tmp_path, numbered("cats", 3) | numbered("dogs", 3) | hidden))

    assert len(dataset.images) == 6


BAD_NAMES = {
    "a line end": "ca\nts",
    "an escape sequence": "\x1b[31mcats",
    "a space before": " cats",
    "a space after": "cats ",
    "a backslash": "cats\\dogs",
    "a right-to-left override": "cats\u202egnp",
    "bytes that are no text": os.fsdecode(b"caf\xe9"),
    "too long": "c" * 101,
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_folder_whose_name_cannot_be_a_label_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()

    with pytest.raises(DatasetError, match="a folder's name is its label"):
        scan(write(tmp_path, numbered("dogs", 3)))


@pytest.mark.parametrize("name", ["猫", "Kätzchen", "cats & dogs", "<b>", "c" * 100, "rolled-in_scale"])
def test_any_printable_folder_name_is_a_label(tmp_path: Path, name: str) -> None:
    assert name in scan(write(tmp_path, numbered(name, 3) | numbered("dogs", 3))).labels


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere: not a folder"):
        scan(tmp_path / "nowhere")


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"photo\.jpg: not a folder"):
        scan(write(tmp_path, {"photo.jpg": b"x"}) / "photo.jpg")


def test_a_folder_of_images_without_class_folders_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no class folders; need one folder of images for each class"):
        scan(write(tmp_path, {"1.jpg": b"1", "2.jpg": b"2"}))


def test_class_folders_without_any_image_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "dogs").mkdir()

    with pytest.raises(DatasetError, match="no images in cats, dogs"):
        scan(tmp_path)


def test_an_empty_class_folder_is_named_before_training(tmp_path: Path) -> None:
    (tmp_path / "mice").mkdir()
    dataset = scan(write(tmp_path, numbered("cats", 5) | numbered("dogs", 5)))

    assert dataset.labels == ("cats", "dogs", "mice")
    with pytest.raises(DatasetError, match=r"class 'mice' has 0 usable training image\(s\), need 2"):
        check_trainable(dataset, tmp_path)


def test_a_class_that_is_only_in_the_holdout_is_named_before_training(tmp_path: Path) -> None:
    files = numbered("train/cats", 3) | numbered("train/dogs", 3) | numbered("val/mice", 3)

    with pytest.raises(DatasetError, match="class 'mice' has 0 usable training image"):
        check_trainable(scan(write(tmp_path, files)), tmp_path)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"only one class, 'cats'; need at least two$"):
        check_trainable(scan(write(tmp_path, numbered("cats", 5))), tmp_path)


def test_one_class_that_holds_class_folders_is_taken_for_the_folder_that_was_meant(tmp_path: Path) -> None:
    dataset = scan(write(tmp_path, numbered("all/crazing", 5) | numbered("all/patches", 5)))

    with pytest.raises(DatasetError) as error:
        check_trainable(dataset, tmp_path)

    assert str(error.value).endswith(f"did you mean {tmp_path / 'all'}?")


def test_one_class_in_split_folders_is_not_enough(tmp_path: Path) -> None:
    dataset = scan(write(tmp_path, numbered("train/cats", 5) | numbered("val/cats", 5)))

    with pytest.raises(DatasetError, match="only one class, 'cats'; need at least two"):
        check_trainable(dataset, tmp_path)


def test_a_class_that_lost_its_files_is_named_with_the_files_and_the_reasons(tmp_path: Path) -> None:
    files = numbered("cats", 5) | numbered("dogs", 5)
    dataset = scan(write(tmp_path, files))
    lost = {image.sha256: "too dark" for image in dataset.images if image.label == "dogs"}

    with pytest.raises(DatasetError) as error:
        check_trainable(dataset.without(lost), tmp_path)

    text = str(error.value)
    assert "class 'dogs' has 0 usable training image(s), need 2" in text
    assert text.count(": too dark") == 3
    assert text.count(str(tmp_path / "dogs")) == 3
    assert text.endswith("and 2 more")


def test_only_files_of_the_class_itself_are_named_as_lost(tmp_path: Path) -> None:
    root = write(tmp_path / "cats", numbered("cats", 5) | numbered("dogs", 5))  # the root is called like a class
    dataset = scan(root)
    gone = {image.sha256: f"unreadable {image.label}" for image in dataset.images}

    with pytest.raises(DatasetError) as error:
        check_trainable(dataset.without(gone), root)

    assert "class 'cats'" in str(error.value)
    assert "unreadable cats" in str(error.value)
    assert "unreadable dogs" not in str(error.value)
    assert str(error.value).endswith("and 2 more")


def test_images_taken_out_leave_with_their_reason_and_the_rest_stays(tmp_path: Path) -> None:
    dataset = scan(write(tmp_path, numbered("cats", 5) | numbered("dogs", 5) | {"stray.txt": b""}))
    bad = dataset.images[3]

    smaller = dataset.without({bad.sha256: "no picture", "f" * 64: "not in here"})

    assert set(dataset.images) - set(smaller.images) == {bad}
    assert reasons(smaller, tmp_path) == {
        "stray.txt": "not inside a class folder",
        str(bad.path.relative_to(tmp_path)): "no picture",
    }
    assert (smaller.labels, smaller.split) == (dataset.labels, dataset.split)


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="needs a file that nobody can read, which Linux has")
def test_a_file_that_cannot_be_read_is_left_out_with_the_systems_reason(tmp_path: Path) -> None:
    write(tmp_path, numbered("cats", 5) | numbered("dogs", 5))
    (tmp_path / "cats/broken.jpg").symlink_to("/proc/self/mem")

    dataset = scan(tmp_path)

    assert len(dataset.images) == 10
    assert reasons(dataset, tmp_path) == {"cats/broken.jpg": "cannot be read: Input/output error"}


def test_progress_is_told_of_every_file(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    scan(
        write(tmp_path, numbered("cats", 3) | numbered("dogs", 2)),
        lambda stage, done, total: told.append((stage, done, total)),
    )

    assert told == [("scan", done, 5) for done in range(6)]


FILES = st.dictionaries(
    st.tuples(st.sampled_from(["train", "val", "test"]), st.sampled_from(["cats", "dogs", "mice"]), st.integers(0, 4)),
    st.integers(0, 12).map(lambda number: f"picture {number}".encode()),
    min_size=1,
)


@settings(max_examples=60)
@given(files=FILES, split=st.booleans())
def test_every_file_is_either_used_once_or_left_out_with_a_reason(
    files: dict[tuple[str, str, int], bytes], split: bool
) -> None:
    """Files of few contents in three classes and three splits, so that copies and contradictions abound."""
    parts = {part for part, _, _ in files}
    assume(
        not split or ("train" in parts and len(parts) > 1) or len({label for _, label, _ in files}) == 1
    )  # else refused
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = {f"{part}/{label}/{n}" if split else f"{label}/{part}{n}": d for (part, label, n), d in files.items()}
        write(root, names)

        dataset = scan(root)

    used = [str(image.path.relative_to(root)) for image in dataset.images]
    left_out = [str(entry.file.relative_to(root)) for entry in dataset.left_out]
    assert sorted(used + left_out) == sorted(names)
    assert len({image.sha256 for image in dataset.images}) == len(dataset.images)
    assert all(entry.reason for entry in dataset.left_out)
    for image in dataset.images:
        path = str(image.path.relative_to(root))
        assert image.sha256 == image_hash(names[path])
        assert image.label in Path(path).parts


@pytest.mark.parametrize("by_list", [False, True])
def test_a_val_beside_a_test_is_there_to_tune_by(tmp_path: Path, by_list: bool) -> None:
    rows = []
    for number, (part, label) in enumerate((p, c) for p in ("train", "val", "test") for c in ("blue", "red")):
        for copy in range(3):
            file = tmp_path / part / label / f"{copy}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(picture(label, 10 * number + copy))
            rows.append(f"{file.relative_to(tmp_path)},{label},{part}")
    (tmp_path / "list.csv").write_text("\n".join(["file,label,split", *rows]))

    found = scan(tmp_path / "list.csv" if by_list else tmp_path)

    for part in ("train", "val", "test"):
        images = [image for image in found.images if image.path.parts[-3] == part]
        assert [(image.is_tuning, image.is_holdout) for image in images] == [(part == "val", part == "test")] * 6
    assert "stop and tune by val; holdout test" in found.how_split
