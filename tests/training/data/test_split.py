from pathlib import Path

import numpy as np
import numpy.typing as npt

from regraft.label_rules import image_hash
from training.data.dataset import Dataset, LabelledImage
from training.data.split import split_by_likeness
from training.head.features import Features, assemble

LABELS = ("a", "b")


def versions(pictures: int, each: int, *, given: bool = False) -> tuple[Dataset, Features]:
    """Return so many pictures of each class in so many versions, their embeddings near each other.

    Where the split is given, the last version of every fourth picture, and all those of every fifth, are held out.
    """
    random = np.random.default_rng(0)
    images, embeddings = [], {}
    for label in LABELS:
        for picture in range(pictures):
            original = random.normal(3, 1, 32)
            for version in range(each):
                name = f"{label}{picture}.{version}"
                sha256 = image_hash(name.encode())
                held = given and ((picture % 4 == 0 and version == each - 1) or picture % 5 == 0)
                images.append(LabelledImage(Path(name), label, held, sha256=sha256))
                embeddings[sha256] = np.asarray(original + random.normal(0, 0.1, 32), np.float32)
    dataset = Dataset(LABELS, tuple(images), (), "a test", is_given=given)
    return dataset, features_of(dataset, embeddings)


def features_of(dataset: Dataset, embeddings: dict[str, npt.NDArray[np.float32]]) -> Features:
    rows = [(image.sha256, image.label, image.is_holdout) for image in dataset.images]
    return assemble(dataset.labels, rows, embeddings)


def test_versions_of_a_picture_come_to_one_side_and_the_rows_follow() -> None:
    dataset, features = split_by_likeness(*versions(20, 3))

    found = {(image.path.stem, image.group, image.is_holdout) for image in dataset.images}
    assert len(found) == len({picture for picture, _, _ in found}) == len({group for _, group, _ in found}) == 40
    assert [int(features.is_holdout[features.label_index == label].sum()) for label in range(2)] == [12, 12]
    by_hash = {image.sha256: image for image in dataset.images}
    for sha256, held, of in zip(features.sha256, features.is_holdout, features.group, strict=True):
        assert (by_hash[sha256].is_holdout, by_hash[sha256].group) == (held, of)
    assert dataset.notes == (
        "120 pictures look nearly like others: they stay on one side of the split, and in one fold.",
    )


def test_of_a_given_split_what_is_like_a_held_out_picture_is_not_trained_on_and_says_why() -> None:
    dataset, features = split_by_likeness(*versions(20, 3, given=True))

    held = {image.path.stem for image in dataset.images if image.is_holdout}
    trained = {image.path.stem for image in dataset.images if not image.is_holdout}
    assert not held & trained
    assert len(held) == 16
    gone = {entry.file.name: entry.reason for entry in dataset.left_out}
    assert gone.keys() == {f"{label}{n}.{version}" for label in "ab" for n in (4, 8, 12, 16) for version in (0, 1)}
    assert gone["a4.0"].startswith(
        "belongs with a4.2, which is held out: they look nearly the same, or others of their group do"
    )
    assert set(features.sha256) == {image.sha256 for image in dataset.images}


def test_a_second_look_changes_nothing() -> None:
    once = split_by_likeness(*versions(20, 3))

    again = split_by_likeness(*once)

    assert [(i.sha256, i.is_holdout, i.group) for i in again[0].images] == [
        (i.sha256, i.is_holdout, i.group) for i in once[0].images
    ]


def test_pictures_that_are_like_no_other_stay_as_they_are() -> None:
    dataset, features = versions(20, 1)

    settled, rows = split_by_likeness(dataset, features)

    assert settled.notes == ()
    assert rows.group.tolist() == features.group.tolist()
    assert {i.sha256 for i in settled.images} == {i.sha256 for i in dataset.images}
