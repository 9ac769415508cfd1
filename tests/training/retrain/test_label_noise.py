import numpy as np
import numpy.typing as npt
import pytest

from regraft.model.artifact import FloatArray
from training.retrain.label_noise import Foretold, wrong_labels

CLASSES = 4


def calibrated(pictures: int, seed: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Return probabilities that can be taken at their word, and labels drawn by them."""
    generator = np.random.default_rng(seed)
    sharpness = generator.uniform(0.5, 6, size=(pictures, 1))
    logits = sharpness * generator.normal(size=(pictures, CLASSES))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    drawn = generator.uniform(size=(pictures, 1)) < probabilities.cumsum(axis=1)
    return np.asarray(probabilities, np.float32), np.asarray(drawn.argmax(axis=1), np.int64)


def contradicted(probabilities: FloatArray, labels: npt.NDArray[np.int64]) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    rows = probabilities.argmax(axis=1) != labels
    return probabilities[rows], labels[rows]


FORETOLD = Foretold.by(calibrated(2000, 99)[0])


@pytest.mark.parametrize("seed", range(12))
def test_right_labels_of_what_the_head_got_wrong_are_no_wrong_labels(seed: int) -> None:
    found = wrong_labels(*contradicted(*calibrated(400, seed)), FORETOLD)

    assert (found > 0.3).mean() < 0.1


def test_of_many_batches_of_corrections_few_have_any_doubted_label() -> None:
    doubted = [
        bool((wrong_labels(*contradicted(*calibrated(300, seed)), FORETOLD) > 0.3).any()) for seed in range(100, 160)
    ]

    assert np.mean(doubted) < 0.2


def test_many_mistakes_of_one_pair_of_classes_are_no_wrong_labels() -> None:
    doubted = []
    for seed in range(20):
        probabilities, labels = contradicted(*calibrated(1500, seed))
        mixed_up = (probabilities.argmax(axis=1) == 0) & (labels == 1)
        doubted.append(bool((wrong_labels(probabilities[mixed_up], labels[mixed_up], FORETOLD) > 0.3).any()))

    assert np.mean(doubted) < 0.2


def test_labels_that_are_wrong_by_chance_are_found_though_no_pair_of_classes_stands_out() -> None:
    probabilities, labels = contradicted(*calibrated(400, 5))
    fresh, _ = calibrated(2000, 6)
    sure = fresh[fresh.max(axis=1) > 0.99][:24]
    called = (sure.argmax(axis=1) + 1 + np.arange(24) % (CLASSES - 1)) % CLASSES

    found = wrong_labels(np.concatenate([probabilities, sure]), np.concatenate([labels, called]), FORETOLD) > 0.3

    assert found[-24:].mean() > 0.9
    assert found[:-24].mean() < 0.1


@pytest.mark.parametrize("wrong", [8, 30])
def test_pictures_of_one_class_that_are_called_another_are_found_among_corrections(wrong: int) -> None:
    probabilities, labels = calibrated(400, 5)
    fresh, truth = calibrated(2000, 6)
    victims = fresh[(fresh.argmax(axis=1) == 0) & (truth == 0)][:wrong]
    honest = contradicted(probabilities, labels)

    found = wrong_labels(
        np.concatenate([honest[0], victims]), np.concatenate([honest[1], np.full(len(victims), 2)]), FORETOLD
    )

    assert (found[-wrong:] > 0.3).mean() >= 0.5
    assert (found[:-wrong] > 0.3).mean() < 0.1


def test_a_single_contradiction_shows_nothing() -> None:
    sure = np.array([[0.99, 0.004, 0.003, 0.003]], np.float32)

    assert wrong_labels(sure, np.array([1]), FORETOLD).tolist() == [0]


def test_the_more_sure_the_head_is_the_more_likely_is_the_label_wrong() -> None:
    top = np.array([0.5, 0.7, 0.9, 0.99] * 5)
    probabilities = np.asarray(np.column_stack([top, (1 - top) * 0.8, (1 - top) * 0.1, (1 - top) * 0.1]), np.float32)

    found = wrong_labels(probabilities, np.full(20, 1), FORETOLD)[:4]

    assert found.tolist() == sorted(found.tolist())
    assert found[-1] > 0.5
