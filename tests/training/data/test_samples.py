from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from regraft.label_rules import image_hash
from tests.tiny import picture
from tests.training.conftest import embed
from training.data.dataset import Dataset, LabelledImage
from training.data.samples import Sample, samples_of, set_aside
from training.head.features import assemble

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=200).map(lambda labels: np.array(labels, np.int64))
SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.floats(0, 1)

Labels = npt.NDArray[np.int64]


@given(LABELS, SHARES, SEEDS)
def test_the_same_seed_sets_the_same_pictures_aside(labels: Labels, share: float, seed: int) -> None:
    assert np.array_equal(set_aside(labels, share, seed), set_aside(labels, share, seed))


@given(LABELS, SHARES, SEEDS)
def test_every_class_of_three_gives_some_and_keeps_some(labels: Labels, share: float, seed: int) -> None:
    chosen = set_aside(labels, share, seed)

    for index in np.unique(labels):
        given_up = chosen[labels == index]
        assert given_up.sum() == 0 if len(given_up) < 3 else 0 < given_up.sum() < len(given_up)


@given(LABELS, st.floats(0.05, 0.6), SEEDS)
def test_every_class_gives_its_share(labels: Labels, share: float, seed: int) -> None:
    chosen = set_aside(labels, share, seed)

    for index in np.unique(labels):
        given_up = chosen[labels == index]
        if len(given_up) >= 3:
            assert abs(given_up.sum() - share * len(given_up)) <= 1


def test_another_seed_sets_others_aside() -> None:
    labels = np.zeros(100, np.int64)

    assert not np.array_equal(set_aside(labels, 0.2, 0), set_aside(labels, 0.2, 1))


def test_classes_of_one_or_two_pictures_give_none() -> None:
    assert not set_aside(np.array([0, 1, 1, 2, 2]), 0.5, 0).any()


@given(st.lists(st.integers(2, 6), min_size=2, max_size=30), st.floats(0.05, 0.6), SEEDS)
def test_what_belongs_together_is_set_aside_together(sizes: list[int], share: float, seed: int) -> None:
    group = np.repeat(np.arange(len(sizes)), sizes)
    labels = group % 2

    chosen = set_aside(labels, share, seed, group)

    assert all(len(set(chosen[group == each])) == 1 for each in range(len(sizes)))
    for index in np.unique(labels):
        given_up = chosen[labels == index]
        assert not given_up.all()
        assert given_up.any() or len(set(group[labels == index].tolist())) == 1


def folder_of(tmp_path: Path) -> Dataset:
    """Return a dataset of two colours, its pictures in no order."""
    images = []
    for number in range(8):
        for label in ("red", "blue"):
            data = picture(label, number)
            path = tmp_path / f"{label}{number}.png"
            path.write_bytes(data)
            images.append(LabelledImage(path, label, is_holdout=number % 3 == 0, sha256=image_hash(data)))
    return Dataset(("blue", "red"), tuple(images), (), "a test")


def test_samples_come_in_the_order_of_the_features(tmp_path: Path) -> None:
    dataset = folder_of(tmp_path)
    embeddings = {image.sha256: embed(image.path.read_bytes()) for image in dataset.images}
    rows = [(image.sha256, image.label, image.is_holdout) for image in dataset.images]
    features = assemble(dataset.labels, rows, embeddings)

    for holdout, part in ((False, features.train()), (True, features.holdout())):
        samples = samples_of(dataset, holdout=holdout)
        assert tuple(sample.sha256 for sample in samples) == part.sha256
        assert [sample.label_index for sample in samples] == part.label_index.tolist()


def test_every_sample_is_the_file_of_its_hash_and_counts_in_full(tmp_path: Path) -> None:
    dataset = folder_of(tmp_path)

    samples = samples_of(dataset, holdout=False) + samples_of(dataset, holdout=True)

    assert len(samples) == len(dataset.images)
    assert all(image_hash(sample.path.read_bytes()) == sample.sha256 for sample in samples)
    assert all(dataset.labels[sample.label_index] in sample.path.name for sample in samples)
    assert {sample.weight for sample in samples} == {1.0}


def test_the_order_of_the_files_does_not_matter(tmp_path: Path) -> None:
    dataset = folder_of(tmp_path)
    turned = Dataset(dataset.labels, dataset.images[::-1], (), "a test")

    assert samples_of(dataset, holdout=False) == samples_of(turned, holdout=False)


def test_a_dataset_without_a_holdout_has_no_samples_of_it() -> None:
    dataset = Dataset(("a",), (LabelledImage(Path("x.png"), "a", is_holdout=False, sha256="0" * 64),), (), "a test")

    assert samples_of(dataset, holdout=True) == ()
    assert samples_of(dataset, holdout=False) == (Sample(Path("x.png"), "0" * 64, 0, group=0),)
