from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.model.artifact import FloatArray
from training.evaluation.paired_comparison import compare
from training.strategies.auto import room_for_gain

ACCURACIES = st.floats(0, 1)
COUNTS = st.integers(1, 100_000)
SEEDS = st.integers(0, 2**32 - 1)


@given(st.tuples(ACCURACIES, ACCURACIES).map(sorted), COUNTS)
def test_a_worse_probe_never_leaves_less_room(accuracies: list[float], images: int) -> None:
    worse, better = accuracies

    assert room_for_gain(worse, images) or not room_for_gain(better, images)


@given(ACCURACIES, st.tuples(COUNTS, COUNTS).map(sorted))
def test_more_images_never_leave_less_room(accuracy: float, counts: list[int]) -> None:
    few, many = counts

    assert room_for_gain(accuracy, many) or not room_for_gain(accuracy, few)


@given(COUNTS)
def test_a_probe_without_errors_leaves_no_room(images: int) -> None:
    assert not room_for_gain(1.0, images)


@pytest.mark.parametrize(
    ("accuracy", "images", "has_room"),
    [(0.9, 1000, True), (0.9, 50, False), (0.99, 200, False), (0.5, 40, True), (0.0, 1, False)],
)
def test_half_of_the_errors_must_stand_out_from_the_noise(accuracy: float, images: int, has_room: bool) -> None:
    assert room_for_gain(accuracy, images) == has_room


def answers(truth: list[float], classes: int = 2) -> FloatArray:
    """Return probabilities [n, K] that give the first class so much, and the others the rest alike."""
    rest = [[(1 - share) / (classes - 1)] * (classes - 1) for share in truth]
    return np.array([[share, *others] for share, others in zip(truth, rest, strict=True)], np.float32)


def all_first(count: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.zeros(count, np.int64)


@given(st.integers(1, 50), SEEDS)
def test_a_head_is_not_better_than_itself(images: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    head = random.dirichlet(np.ones(3), images).astype(np.float32)

    compared = compare(head, head, random.integers(0, 3, images))

    assert compared.gain == 0
    assert compared.accuracy[0] == compared.accuracy[1]
    assert not compared.is_better


@given(st.integers(2, 50), SEEDS)
def test_the_gain_changes_its_sign_with_the_sides(images: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    one, other = (random.dirichlet(np.ones(3), images).astype(np.float32) for _ in range(2))
    labels = random.integers(0, 3, images)

    there, back = compare(one, other, labels), compare(other, one, labels)

    assert there.gain == pytest.approx(-back.gain)
    assert there.error == pytest.approx(back.error)
    assert there.accuracy == back.accuracy[::-1]
    assert there.images == back.images == images


def test_the_gain_is_the_mean_of_what_the_log_loss_falls_by() -> None:
    compared = compare(answers([0.5, 0.25, 0.8]), answers([1.0, 0.5, 0.4]), all_first(3))

    ln2 = np.log(2)
    falls = np.array([ln2, ln2, -ln2])
    assert compared.gain == pytest.approx(ln2 / 3, rel=1e-5)
    assert compared.error == pytest.approx(falls.std(ddof=1) / np.sqrt(3), rel=1e-5)


def test_a_head_that_is_surer_of_the_truth_everywhere_is_better() -> None:
    assert compare(answers([0.6] * 20), answers([0.9] * 20), all_first(20)).is_better


def test_less_loss_with_more_errors_is_not_better() -> None:
    before = answers([0.51] * 40)
    after = answers([0.999] * 39 + [0.49])

    compared = compare(before, after, all_first(40))

    assert compared.gain > compared.error
    assert not compared.is_better


def test_fewer_errors_with_more_loss_is_not_better() -> None:
    compared = compare(answers([0.9] * 39 + [0.4]), answers([0.6] * 40), all_first(40))

    assert compared.accuracy[1] > compared.accuracy[0]
    assert not compared.is_better


def test_a_gain_within_the_noise_is_not_better() -> None:
    compared = compare(answers([0.6] * 40), answers([0.9, 0.45] * 16 + [0.6, 0.62] * 4), all_first(40))

    assert compared.gain > 0
    assert not replace(compared, error=2 * compared.gain, accuracy=(0.5, 0.6)).is_better


def test_one_picture_proves_nothing() -> None:
    compared = compare(answers([0.1]), answers([0.99]), all_first(1))

    assert compared.gain > 0
    assert not compared.is_better


@pytest.mark.parametrize(("images", "is_better"), [(4, False), (19, False), (20, True)])
def test_to_be_surer_of_a_few_easy_pictures_shows_nothing(images: int, is_better: bool) -> None:
    """Of 20 real photographs 4 were set aside, of which both got all right; on 120 others the second was far worse."""
    compared = compare(answers([0.85] * images), answers([0.9999] * images), all_first(images))

    assert compared.gain > 10 * compared.error
    assert compared.is_better == is_better


def test_a_head_that_is_no_better_is_rarely_taken_for_better() -> None:
    random = np.random.default_rng(0)
    taken = 0
    for _ in range(400):
        sure = random.uniform(0.3, 0.95, (2, 25))
        taken += compare(answers(sure[0].tolist()), answers(sure[1].tolist()), all_first(25)).is_better

    assert taken <= 0.07 * 400


def test_a_head_that_rules_the_truth_out_loses_much_and_breaks_nothing() -> None:
    compared = compare(answers([0.0] * 30), answers([1.0] * 30), all_first(30))

    assert 20 < compared.gain < 100
    assert compared.is_better
