import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.model.artifact import FloatArray
from tests.training.conftest import blobs
from training.head.calibrate import FOLDS, HeldBack, calibrate_head, cross_fitted
from training.head.fit import fit_temperature
from training.head.folds import deal
from training.head.logistic import log_loss

SEEDS = st.integers(0, 2**32 - 1)
CLASSES = 3
FEATURES = blobs([20, 20, 20], 6, holdout=4)
TRAIN = FEATURES.train()
ROWS = np.arange(len(TRAIN.sha256)) % 5 == 0


def noise(seed: int, epochs: int, images: int) -> tuple[FloatArray, "np.ndarray[tuple[int], np.dtype[np.int64]]"]:
    """Return logits [epochs, images, K] that know nothing of the labels."""
    random = np.random.default_rng(seed)
    return random.normal(size=(epochs, images, CLASSES)).astype(np.float32), np.arange(images) % CLASSES


def loss_of(probabilities: FloatArray, label_index: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> float:
    return log_loss(np.log(probabilities.astype(np.float64)), label_index, np.ones(len(label_index)))


def held_back(seed: int = 0, *, embedding: FloatArray | None = None, weight: float = 1.0) -> HeldBack:
    """Return what some network says of every fifth training row; rows of the first class count ``weight``."""
    truth = TRAIN.label_index[ROWS]
    logits = np.random.default_rng(seed).normal(size=(len(truth), CLASSES)) + 4 * np.eye(CLASSES)[truth]
    logits[truth == 0] *= 2  # surer of the first class, so that a temperature depends on what it counts
    logits[np.flatnonzero(truth == 1)[:2]] *= -1
    counts = np.where(truth == 0, weight, 1.0)
    rows = np.asarray(logits, np.float32)
    return HeldBack(ROWS, rows, cross_fitted(rows[None], truth, counts, counts, 0), counts, embedding)


@given(SEEDS, st.integers(1, 4), st.integers(10, 40), st.sampled_from([0.5, 2.0, 3.0]))
def test_of_no_image_the_answer_is_fitted_to_the_image(seed: int, epochs: int, images: int, scale: float) -> None:
    logits, labels = noise(seed, epochs, images)
    held = deal(labels, FOLDS, seed) == 0
    sharper = logits.copy()
    sharper[:, held] *= scale  # a temperature fitted to these would take it back

    before, after = (
        cross_fitted(each, labels, np.ones(images), np.ones(images), seed)[held] for each in (logits, sharper)
    )

    odds = [np.log(p.astype(np.float64)) - np.log(p[:, :1].astype(np.float64)) for p in (before, after)]
    np.testing.assert_allclose(odds[1], scale * odds[0], atol=1e-3)


def test_the_luckiest_of_many_epochs_is_worth_no_more_than_the_others() -> None:
    flattered, honest = [], []
    for seed in range(20):
        logits, labels = noise(seed, 30, 40)
        ones = np.ones(40)
        best = min(logits.astype(np.float64), key=lambda epoch: log_loss(epoch, labels, ones))
        flattered.append(log_loss(best / fit_temperature(best, labels, ones), labels, ones))
        honest.append(loss_of(cross_fitted(logits, labels, ones, ones, seed), labels))

    chance = np.log(CLASSES)
    assert np.mean(flattered) < chance - 0.01
    assert np.mean(honest) > chance - 0.01


def test_an_epoch_that_is_best_for_all_is_everybodys() -> None:
    labels = np.arange(30) % CLASSES
    poor, good = noise(1, 1, 30)[0][0], (3 * np.eye(CLASSES)[labels] + noise(2, 1, 30)[0][0]).astype(np.float32)

    answers = cross_fitted(np.stack([poor, good, poor]), labels, np.ones(30), np.ones(30), 0)

    assert (answers.argmax(axis=1) == good.argmax(axis=1)).all()


def test_images_of_one_group_choose_nothing_for_each_other() -> None:
    """Each of 20 scenes is there three times, and an epoch that knows a scene by heart is right on all three."""
    scenes, times = 20, 3
    labels = np.repeat(np.arange(scenes) % CLASSES, times)
    random = np.random.default_rng(0)
    by_heart = np.repeat(random.normal(size=(40, scenes, CLASSES)), times, axis=1).astype(np.float32)
    ones, group = np.ones(scenes * times), np.repeat(np.arange(scenes), times)

    apart, together = (cross_fitted(by_heart, labels, ones, ones, 0, each) for each in (None, group))

    assert loss_of(together, labels) > loss_of(apart, labels) + 0.05


@pytest.mark.parametrize("images", [1, 2, 3])
def test_very_few_images_are_answered_too(images: int) -> None:
    logits, labels = noise(0, 2, images)

    answers = cross_fitted(logits, labels, np.ones(images), np.ones(images), 0)

    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)


def test_the_temperature_is_that_of_the_network_that_did_not_learn_from_the_images() -> None:
    held = held_back()
    weight, bias = np.eye(CLASSES, 6, dtype=np.float32), np.zeros(CLASSES, np.float32)

    fitted = calibrate_head(weight, bias, FEATURES, held)

    truth = TRAIN.label_index[ROWS]
    assert fitted.temperature == pytest.approx(fit_temperature(held.logits.astype(np.float64), truth, held.weight))
    np.testing.assert_allclose(fitted.head.weight, weight / fitted.temperature, rtol=1e-6)
    assert fitted.unseen.rows.tolist() == np.flatnonzero(ROWS).tolist()
    assert fitted.unseen.probabilities is held.probabilities
    assert fitted.choices["tune_images"] == ROWS.sum()


def test_pictures_that_count_more_decide_the_temperature() -> None:
    weight, bias = np.eye(CLASSES, 6, dtype=np.float32), np.zeros(CLASSES, np.float32)

    alike, more = (calibrate_head(weight, bias, FEATURES, held_back(weight=share)) for share in (1.0, 20.0))

    assert abs(more.temperature - alike.temperature) > 0.1 * alike.temperature


def test_how_new_images_look_is_asked_of_the_network_that_did_not_learn_from_them() -> None:
    weight, bias = np.eye(CLASSES, 6, dtype=np.float32), np.zeros(CLASSES, np.float32)
    spread = TRAIN.embedding + np.random.default_rng(3).normal(scale=3.0, size=TRAIN.embedding.shape)

    same = calibrate_head(weight, bias, FEATURES, held_back(embedding=TRAIN.embedding))
    other = calibrate_head(weight, bias, FEATURES, held_back(embedding=np.asarray(spread, np.float32)))

    assert same.head.digest() == other.head.digest()  # of all images, by the network that is published
    assert other.novelty_threshold > same.novelty_threshold


def test_where_nothing_was_held_back_nothing_is_calibrated() -> None:
    weight, bias = np.eye(CLASSES, 6, dtype=np.float32), np.zeros(CLASSES, np.float32)

    fitted = calibrate_head(weight, bias, FEATURES, None)

    assert fitted.temperature == 1
    assert len(fitted.unseen.rows) == 0
    assert fitted.choices == {"tune_images": 0, "tune_accuracy": None, "tune_log_loss": None}
