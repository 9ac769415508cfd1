import math
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from regraft.model.artifact import FloatArray
from regraft.model.card import Metrics
from training.evaluation.metrics import independent_images, measure, wilson_interval

LABELS = ("ant", "bee", "wasp")
Z = 1.959963984540054  # of a two-sided 95 % interval


def answers(predicted: list[int], classes: int = 3, certainty: float = 0.7) -> FloatArray:
    """Return probabilities [n, K] whose largest is at ``predicted``."""
    probabilities = np.full((len(predicted), classes), (1 - certainty) / (classes - 1), np.float32)
    probabilities[np.arange(len(predicted)), predicted] = certainty
    return probabilities


def measured(predicted: list[int], truth: list[int], labels: tuple[str, ...] = LABELS) -> Metrics:
    metrics = measure(answers(predicted, len(labels)), np.array(truth, np.int64), labels)
    assert metrics is not None
    return metrics


#        ant: 3 right, 1 bee       bee: 2 right, 1 ant, 1 wasp   wasp: 1 right, 1 ant
TRUTH = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
GUESS = [0, 0, 0, 1, 1, 1, 0, 2, 2, 0]


def test_a_confusion_counts_the_truth_in_rows_and_the_answers_in_columns() -> None:
    assert measured(GUESS, TRUTH).confusion == ((3, 1, 0), (1, 2, 1), (1, 0, 1))


def test_every_figure_follows_from_the_confusion() -> None:
    metrics = measured(GUESS, TRUTH)

    assert metrics.images == 10
    assert metrics.accuracy == pytest.approx(0.6)
    expected = {"ant": (3 / 5, 3 / 4, 4), "bee": (2 / 3, 2 / 4, 4), "wasp": (1 / 2, 1 / 2, 2)}
    for entry in metrics.per_class:
        precision, recall, support = expected[entry.label]
        assert entry.precision == pytest.approx(precision)
        assert entry.recall == pytest.approx(recall)
        assert entry.f1 == pytest.approx(2 * precision * recall / (precision + recall))
        assert entry.support == support
    assert tuple(entry.label for entry in metrics.per_class) == LABELS
    assert metrics.macro_f1 == pytest.approx(np.mean([entry.f1 for entry in metrics.per_class]))
    assert metrics.log_loss == pytest.approx(-(6 * math.log(0.7) + 4 * math.log(0.15)) / 10, rel=1e-5)


def test_nothing_to_measure_on_gives_no_metrics() -> None:
    assert measure(answers([]), np.array([], np.int64), LABELS) is None


def test_macro_f1_is_over_the_classes_that_have_images() -> None:
    metrics = measured([0, 0, 1], [0, 0, 1])

    assert metrics.macro_f1 == 1
    wasp = metrics.per_class[2]
    assert (wasp.precision, wasp.recall, wasp.f1, wasp.support) == (0, 0, 0, 0)


def test_a_class_without_images_that_is_answered_counts_against_the_others_only() -> None:
    metrics = measured([0, 2], [0, 0])

    assert metrics.macro_f1 == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert metrics.confusion == ((1, 0, 1), (0, 0, 0), (0, 0, 0))


def test_a_perfect_score_is_one_and_its_log_loss_is_zero_not_minus_zero() -> None:
    metrics = measure(answers([0, 1, 2], certainty=1.0), np.array([0, 1, 2], np.int64), LABELS)

    assert metrics is not None
    assert (metrics.accuracy, metrics.macro_f1, metrics.log_loss) == (1, 1, 0)
    assert math.copysign(1, metrics.log_loss) == 1


def test_a_truth_that_was_given_no_chance_at_all_costs_much_but_not_endlessly() -> None:
    metrics = measure(answers([0], certainty=1.0), np.array([1], np.int64), LABELS)

    assert metrics is not None
    assert 20 < metrics.log_loss < 100


@pytest.mark.parametrize(("correct", "images"), [(0, 1), (1, 1), (0, 50), (50, 50), (145, 153), (1, 10_000)])
def test_the_interval_is_wilsons(correct: int, images: int) -> None:
    low, high = wilson_interval(correct, images)

    share, square = correct / images, Z * Z
    middle = (share + square / (2 * images)) / (1 + square / images)
    half = Z / (1 + square / images) * math.sqrt(share * (1 - share) / images + square / (4 * images**2))
    assert low == pytest.approx(middle - half, abs=1e-9)
    assert high == pytest.approx(middle + half, abs=1e-9)


IMAGES = st.integers(1, 5000).flatmap(lambda images: st.tuples(st.integers(0, images), st.just(images)))


@hypothesis_settings(max_examples=60)
@given(IMAGES)
def test_the_interval_solves_wilsons_equation_holds_the_share_and_mirrors(counts: tuple[int, int]) -> None:
    correct, images = counts
    share = correct / images

    low, high = wilson_interval(correct, images)

    assert 0 <= low <= share <= high <= 1
    for end in (low, high):  # the score test just does not reject: (p - s)^2 = z^2 p (1 - p) / n
        assert (end - share) ** 2 == pytest.approx(Z**2 * end * (1 - end) / images, abs=1e-9)
    mirrored = wilson_interval(images - correct, images)
    assert [1 - mirrored[1], 1 - mirrored[0]] == pytest.approx([low, high], abs=1e-9)


def test_more_images_give_a_narrower_interval() -> None:
    widths = [high - low for low, high in (wilson_interval(9 * n, 10 * n) for n in (1, 2, 5, 20, 100, 1000))]

    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == len(widths)


PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)


@hypothesis_settings(max_examples=60)
@given(PAIRS, st.randoms())
def test_metrics_hold_together_and_do_not_depend_on_the_order_of_the_images(
    pairs: list[tuple[int, int]],
    random: Random,
) -> None:
    metrics = measured([guess for guess, _ in pairs], [truth for _, truth in pairs])
    shuffled = pairs.copy()
    random.shuffle(shuffled)

    confusion: npt.NDArray[np.int64] = np.array(metrics.confusion)
    assert confusion.sum() == metrics.images == len(pairs)
    assert metrics.accuracy == pytest.approx(np.trace(confusion) / len(pairs))
    assert [entry.support for entry in metrics.per_class] == list(confusion.sum(axis=1))
    assert metrics.accuracy_interval[0] <= metrics.accuracy <= metrics.accuracy_interval[1]
    again = measured([guess for guess, _ in shuffled], [truth for _, truth in shuffled])
    assert again.model_copy(update={"log_loss": 0.0}) == metrics.model_copy(update={"log_loss": 0.0})
    assert again.log_loss == pytest.approx(metrics.log_loss)


def test_images_that_belong_together_widen_the_interval_and_leave_the_rest() -> None:
    truth = np.arange(60) % 3
    said = answers([(int(label) + (number < 12)) % 3 for number, label in enumerate(truth)])

    alone, together = (measure(said, truth, LABELS, group) for group in (np.arange(60), np.arange(60) // 3))

    assert alone is not None
    assert together is not None
    assert alone == measure(said, truth, LABELS)
    assert alone.accuracy_interval == wilson_interval(48, 60)
    assert together.accuracy_interval == wilson_interval(16, 20)
    assert together.model_copy(update={"accuracy_interval": alone.accuracy_interval}) == alone


def test_a_large_group_among_single_images_counts_for_little() -> None:
    assert independent_images(np.array([0] * 10 + list(range(1, 11)))) == 4
    assert independent_images(np.arange(7)) == 7
