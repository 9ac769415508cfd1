import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.model.artifact import FloatArray
from training.evaluation.label_errors import MIN_CLASS, TOP_LOSSES, label_errors, top_losses


def judged(labels: npt.NDArray[np.int64], classes: int, sure: float = 0.9) -> FloatArray:
    """Return probabilities that agree with all labels."""
    probabilities = np.full((len(labels), classes), (1 - sure) / (classes - 1), np.float32)
    probabilities[np.arange(len(labels)), labels] = sure
    return probabilities


def labels_of(*counts: int) -> npt.NDArray[np.int64]:
    return np.repeat(np.arange(len(counts)), counts)


def test_top_losses_are_the_wrong_answers_and_the_least_probable_label_comes_first() -> None:
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.05, 0.95], [0.2, 0.8]], np.float32)

    assert top_losses(probabilities, np.array([0, 0, 0, 1])).tolist() == [2, 1]


def test_a_right_answer_is_no_loss_however_unsure() -> None:
    assert top_losses(np.array([[0.34, 0.33, 0.33]], np.float32), np.array([0])).tolist() == []


def test_only_the_worst_losses_are_kept() -> None:
    wrong = judged(labels_of(40, 0), 2)

    assert len(top_losses(wrong, np.ones(40, np.int64))) == TOP_LOSSES


def test_a_label_that_everything_speaks_against_is_found() -> None:
    labels = labels_of(20, 20, 20)
    probabilities = judged(labels, 3)
    labels[5], labels[47] = 2, 0
    probabilities[47] = (0.01, 0.01, 0.98)

    assert label_errors(probabilities, labels).tolist() == [47, 5]


def test_labels_that_agree_with_the_head_raise_no_suspicion() -> None:
    labels = labels_of(20, 20)

    assert label_errors(judged(labels, 2), labels).tolist() == []


def test_two_classes_are_searched_too() -> None:
    labels = labels_of(15, 15)
    probabilities = judged(labels, 2)
    labels[3] = 1

    assert label_errors(probabilities, labels).tolist() == [3]


def test_classes_with_few_images_are_passed_over() -> None:
    labels = labels_of(20, 20, MIN_CLASS - 1)
    probabilities = judged(labels, 3)
    probabilities[-2:] = (0.9, 0.05, 0.05)

    assert label_errors(probabilities, labels).tolist() == []


@settings(max_examples=60)
@given(st.integers(2, 6), st.integers(0, 40), st.integers(0, 2**31), st.sampled_from([0.01, 1.0, 50.0]))
def test_whatever_the_data_a_suspect_is_a_row_that_was_answered_otherwise(
    classes: int, count: int, seed: int, spread: float
) -> None:
    generator = np.random.default_rng(seed)
    probabilities = np.asarray(generator.dirichlet(np.full(classes, spread), count), np.float32)
    labels = generator.integers(0, generator.integers(1, classes, endpoint=True), count)

    rows = label_errors(probabilities.reshape(count, classes), labels)

    assert len(set(rows.tolist())) == len(rows)
    assert (probabilities[rows].argmax(axis=1) != labels[rows]).all()


@pytest.mark.parametrize("seed", range(20))
def test_cleanlab_finds_the_same(seed: int) -> None:
    """Its "confident_learning" is the off-diagonals of the paper's confident joint."""
    from cleanlab.filter import find_label_issues  # noqa: PLC0415 - it takes two seconds, and one test wants it

    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), 30)
    sure = generator.dirichlet(np.full(4, 0.5), len(labels))
    probabilities = np.asarray(0.5 * sure + 0.5 * np.eye(4)[(labels + (generator.random(len(labels)) < 0.2)) % 4])

    theirs = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)

    assert sorted(label_errors(np.asarray(probabilities, np.float32), labels)) == np.flatnonzero(theirs).tolist()
