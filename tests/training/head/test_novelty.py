from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from regraft.model.artifact import FloatArray, Head
from regraft.model.card import NoveltyMethod
from tests.training.conftest import blobs
from training.head.features import Features, assemble
from training.head.fit import fit
from training.head.logistic import Index
from training.head.novelty import CLASS_MEANS, MAHALANOBIS, METHODS, choose_method, leave_classes_out, novelty_parts


def stretched(counts: list[int], size: int = 30, *, holdout: int = 0, seed: int = 0) -> Features:
    """Return `blobs` whose rows vary twelve times as much in a quarter of the dimensions, whatever their class."""
    features = blobs(counts, size, apart=6, holdout=holdout, seed=seed)
    noise = np.random.default_rng(seed + 1).normal(size=(len(features.embedding), size // 4))
    embedding = features.embedding.copy()
    embedding[:, : size // 4] += 12 * noise.astype(np.float32)
    return replace(features, embedding=embedding)


def head_by(method: NoveltyMethod, features: Features) -> Head:
    train, classes = features.train(), len(features.labels)
    prototypes, whitening = novelty_parts(method, train.embedding, train.label_index, classes)
    return Head(prototypes, np.zeros(classes, np.float32), prototypes, whitening)


@pytest.mark.parametrize(("classes", "images"), [(3, 300), (8, 15), (20, 10)])
def test_about_one_new_image_in_twenty_lies_above_the_novelty_threshold(classes: int, images: int) -> None:
    features = blobs([images] * classes, 30, apart=6, holdout=300)

    fitted = fit(features)

    above = fitted.head.novelty(features.holdout().embedding) > fitted.novelty_threshold
    assert 0.025 < above.mean() < 0.085


@pytest.mark.parametrize("size", [30, 400])  # dimensions: fewer and more than there are images
def test_the_threshold_holds_for_new_images_where_the_classes_vary_more_in_some_directions(size: int) -> None:
    features = stretched([90] * 4, size, holdout=300)

    fitted = fit(features)

    assert fitted.novelty_method == MAHALANOBIS
    above = fitted.head.novelty(features.holdout().embedding) > fitted.novelty_threshold
    assert 0.02 < above.mean() < 0.09


@pytest.mark.parametrize(("classes", "images"), [(5, 72), (5, 24), (3, 24), (2, 24), (5, 8)])
def test_training_images_out_of_fold_are_as_new_as_images_of_their_classes_that_come_later(
    classes: int, images: int
) -> None:
    features = stretched([images] * classes, 400, holdout=2000)

    fitted = fit(features)

    later = fitted.head.novelty(features.holdout().embedding)
    assert ks_2samp(fitted.unseen.novelty, later).pvalue > 0.01


def test_nearly_every_image_of_a_class_that_was_never_seen_lies_above_the_novelty_threshold() -> None:
    fitted = fit(blobs([100, 100], 30, apart=8))
    strangers = blobs([2, 2], 30, apart=8, centres_seed=1234, holdout=200).holdout()

    assert (fitted.head.novelty(strangers.embedding) > fitted.novelty_threshold).mean() > 0.95


def test_prototypes_of_class_means_are_the_mean_directions_of_the_classes() -> None:
    features = blobs([5, 9], 4)
    train = features.train()

    prototypes, whitening = novelty_parts(CLASS_MEANS, train.embedding, train.label_index, 2)

    for index in range(2):
        rows = train.embedding[train.label_index == index].astype(np.float64)
        mean = np.mean([row / np.linalg.norm(row) for row in rows], axis=0)
        np.testing.assert_allclose(prototypes[index], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_array_equal(whitening, np.zeros((1, 4)))
    assert fit(features).head.prototypes.tobytes() == prototypes.tobytes()


def cosine_distances(embedding: FloatArray, means: FloatArray, inner: FloatArray) -> FloatArray:
    """Return the distance [n] to the nearest of means [K, D], by the cosine that an inner product [D, D] makes."""
    products = embedding @ inner @ means.T
    lengths = [np.sqrt(np.einsum("nd,de,ne->n", vectors, inner, vectors)) for vectors in (embedding, means)]
    return np.asarray(1 - (products / lengths[0][:, None] / lengths[1]).max(axis=1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [12, 150])
def test_novelty_is_a_cosine_distance_to_the_nearest_class_mean(method: NoveltyMethod, size: int) -> None:
    features = stretched([40, 30, 20], size, holdout=20)
    train, new = features.train(), features.holdout().embedding
    head = head_by(method, features)
    directions = train.embedding / np.linalg.norm(train.embedding, axis=1, keepdims=True)
    means = np.array([directions[train.label_index == index].mean(axis=0) for index in range(3)])
    inner = np.eye(size) + head.whitening.T @ head.whitening

    np.testing.assert_allclose(head.novelty(new), cosine_distances(new, means, inner), atol=1e-5)


@pytest.mark.parametrize("size", [12, 150])
def test_mahalanobis_novelty_counts_a_step_the_less_the_more_the_classes_vary_that_way(size: int) -> None:
    features = stretched([60, 60, 60], size)
    whitening = head_by(MAHALANOBIS, features).whitening

    weight = 1 + np.square(whitening).sum(axis=0)

    wild = size // 4
    assert weight[:wild].mean() < 0.5 * weight[wild:].mean()
    assert whitening.shape == (min(size, 128), size)


@pytest.mark.parametrize("method", METHODS)
def test_the_length_of_an_embedding_does_not_change_what_novelty_is_measured_by(method: NoveltyMethod) -> None:
    train = stretched([30, 30], 8).train()
    lengths = np.random.default_rng(0).uniform(0.01, 500, (60, 1))

    plain = novelty_parts(method, train.embedding, train.label_index, 2)
    longer = novelty_parts(method, train.embedding * lengths, train.label_index, 2)

    for one, other in zip(plain, longer, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_where_some_directions_vary_in_every_class_mahalanobis_is_chosen_and_finds_more_strangers() -> None:
    features = stretched([60] * 5)
    train = features.train()
    known = features.label_index != 4
    without = replace(features.select(known), labels=features.labels[:4])

    assert chosen(train.embedding, train.label_index) == MAHALANOBIS
    better, worse = (_told_apart(head_by(method, without), features) for method in (MAHALANOBIS, CLASS_MEANS))
    assert better > worse


def chosen(embedding: FloatArray, label_index: Index) -> NoveltyMethod:
    return choose_method(leave_classes_out(embedding, label_index), label_index)


def _told_apart(head: Head, features: Features) -> float:
    """Return how often a picture of the fifth class is newer than one of the others."""
    novelty, stranger = head.novelty(features.embedding), features.label_index == 4
    return float((novelty[stranger][:, None] > novelty[~stranger]).mean())


@pytest.mark.parametrize("counts", [[40, 40], [9, 9, 9], [1, 30, 2]])
def test_without_three_classes_or_ten_images_a_class_novelty_goes_by_class_means(counts: list[int]) -> None:
    train = stretched(counts).train()

    assert chosen(train.embedding, train.label_index) == CLASS_MEANS


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_embeddings_that_are_all_the_same_do_no_harm(method: NoveltyMethod, value: float) -> None:
    embedding, y = np.full((40, 6), value, np.float32), np.arange(40) % 4

    prototypes, whitening = novelty_parts(method, embedding, y, 4)
    head = Head(prototypes, np.zeros(4, np.float32), prototypes, whitening)

    np.testing.assert_allclose(head.novelty(embedding), 1 - value, atol=1e-6)
    assert chosen(embedding, y) == CLASS_MEANS


VARIED = stretched([14, 12, 11], 20, holdout=2)
ARRIVED = [
    (name, VARIED.labels[index], bool(held))
    for name, index, held in zip(VARIED.sha256, VARIED.label_index, VARIED.is_holdout, strict=True)
]
DIGEST = fit(VARIED).head.digest()


@settings(max_examples=8)
@given(st.permutations(ARRIVED))
def test_invariant_7_a_whitened_head_has_the_same_bytes_in_any_order_of_arrival(
    rows: list[tuple[str, str, bool]],
) -> None:
    features = assemble(VARIED.labels, rows, dict(zip(VARIED.sha256, VARIED.embedding, strict=True)))

    fitted = fit(features)

    assert fitted.novelty_method == MAHALANOBIS
    assert fitted.head.digest() == DIGEST
