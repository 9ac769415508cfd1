from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from regraft.image.encode import encode_png
from regraft.label_rules import image_hash
from regraft.stores.database.engine import open_database, sqlite_url
from regraft.stores.embeddings import EmbeddingCache
from tests.tiny import SPEC, picture, tiny_backbone
from tests.training.conftest import COLOUR_KEY, blobs, features_of
from training.data.mirroring import LEAST_LOSS, check_mirroring, mirroring_remark, out_of_fold, sample_each_class
from training.head.features import Embedder

EMBEDDER = Embedder.open(tiny_backbone().SerializeToString(), SPEC, COLOUR_KEY)
LABELS = ("left", "right", "neither")
SEEDS = st.integers(0, 2**32 - 1)


def lit(label: str, number: int) -> bytes:
    """Return a picture that is bright on one side, or on both."""
    random = np.random.default_rng([len(label), number])
    pixels = random.integers(0, 60, (16, 16, 3))
    pixels[:, : 8 if label == "left" else 16] += 120 if label != "right" else 0
    pixels[:, 8:] += 120 if label == "right" else 0
    return encode_png(pixels.astype(np.uint8))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingCache]:
    engine = open_database(sqlite_url(tmp_path / "embeddings.sqlite"))
    yield EmbeddingCache(engine)
    engine.dispose()


def said_of(rows: Sequence[tuple[bytes, str]], labels: tuple[str, ...], folder: Path, cache: EmbeddingCache) -> str:
    """Return what a look at labelled pictures says."""
    files = {image_hash(data): folder / f"{number}.png" for number, (data, _) in enumerate(rows)}
    for data, _ in rows:
        files[image_hash(data)].write_bytes(data)
    features = features_of(labels, [(data, label, False) for data, label in rows])
    return check_mirroring(EMBEDDER, features, files, 0, cache)


def test_classes_that_are_each_others_mirror_image_are_found(tmp_path: Path, cache: EmbeddingCache) -> None:
    rows = [(lit(label, number), label) for label in LABELS for number in range(12)]

    said = said_of(rows, LABELS, tmp_path, cache)

    assert "Mirrored, training pictures are answered as another class: 24 of 36" in said
    assert "left as right (12 of 12)" in said or "right as left (12 of 12)" in said
    assert said.endswith("So mirroring is left out; --mirror brings it back.")


def test_pictures_that_show_the_same_when_mirrored_may_be(tmp_path: Path, cache: EmbeddingCache) -> None:
    rows = [(picture(colour, number), colour) for colour in ("red", "green") for number in range(20)]

    assert said_of(rows, ("green", "red"), tmp_path, cache) == ""


def test_where_sides_cannot_be_told_apart_nothing_is_said(tmp_path: Path, cache: EmbeddingCache) -> None:
    rows = [(picture("grey", 40 * at + number), label) for at, label in enumerate(LABELS) for number in range(20)]

    assert said_of(rows, LABELS, tmp_path, cache) == ""


def test_right_answers_to_pictures_that_mean_the_same_are_rarely_taken_for_lost() -> None:
    """Mirror images that differ by chance alone are drawn anew for each seed; one look in twenty may be wrong."""
    alarms = 0
    for seed in range(60):
        one, other = (blobs([20, 20, 20], 8, apart=1.5, seed=2 * seed + at).train() for at in (0, 1))
        order = np.argsort(one.label_index, kind="stable"), np.argsort(other.label_index, kind="stable")
        labels = one.label_index[order[0]]
        answers = out_of_fold(one.embedding[order[0]], other.embedding[order[1]], labels, np.arange(60), seed)
        alarms += bool(mirroring_remark(*answers, labels, one.labels))

    assert alarms <= binom.ppf(0.999, 60, 0.05)


def test_one_class_of_many_is_enough_and_is_named() -> None:
    labels = np.repeat(np.arange(10), 20)
    mirrored = np.where(labels == 7, 3, labels)

    said = mirroring_remark(labels, mirrored, labels, tuple("abcdefghij"))

    assert "20 of 200 that were answered right, most often h as d (20 of 20)" in said


@given(SEEDS, st.integers(2, 6), st.integers(5, 60))
def test_mirror_images_that_are_answered_no_worse_are_let_be(seed: int, classes: int, count: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), count)
    original = np.where(random.random(len(labels)) < 0.8, labels, random.integers(0, classes, len(labels)))

    assert mirroring_remark(original, original, labels, tuple("abcdef")) == ""
    assert mirroring_remark(original, labels, labels, tuple("abcdef")) == ""


def test_a_loss_that_is_certain_but_small_is_let_be() -> None:
    labels = np.repeat(np.arange(2), 1000)
    mirrored = labels.copy()
    mirrored[:: int(1.5 / LEAST_LOSS)] ^= 1

    assert (mirrored != labels).sum() > 20
    assert mirroring_remark(labels, mirrored, labels, ("a", "b")) == ""


@given(st.lists(st.integers(1, 200), min_size=1, max_size=30), SEEDS)
def test_a_few_of_each_class_are_looked_at(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)

    rows = sample_each_class(labels, seed)

    assert (np.diff(rows) > 0).all()
    taken = np.bincount(labels[rows], minlength=len(counts))
    assert (taken >= np.minimum(counts, 8)).all()
    assert (taken <= 40).all()


def test_a_class_that_only_one_fold_has_stands_in_nobodys_way() -> None:
    labels = np.array([0, 0, 0, 0, 1])

    answers = out_of_fold(np.eye(5, dtype=np.float32), np.eye(5, dtype=np.float32), labels, np.arange(5), 0)

    assert mirroring_remark(*answers, labels, ("a", "b")) == ""
