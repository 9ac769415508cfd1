from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from regraft.cli.options import share_of
from regraft.errors import InvalidRequestError
from regraft.model.artifact import FloatArray
from tests.training.conftest import blobs
from training.head.abstention import abstention, choose_threshold, fewest_images, selective
from training.head.fit import fit
from training.settings import TrainSettings

Index = npt.NDArray[np.int64]


def answers(confidence: npt.ArrayLike, right: npt.ArrayLike) -> tuple[FloatArray, Index]:
    """Return probabilities of two classes, the first the surer, and labels."""
    sure = np.asarray(confidence, np.float64)
    return np.column_stack([sure, 1 - sure]).astype(np.float32), np.where(right, 0, 1)


def drawn(images: int, random: np.random.Generator) -> tuple[FloatArray, Index]:
    """Draw answers that are right as often as they are sure, 97 % on average."""
    confidence = 0.5 + 0.5 * random.beta(3, 0.2, images)
    return answers(confidence, random.random(images) < confidence)


def test_the_promise_is_kept_on_further_pictures_in_nine_of_ten_sets() -> None:
    random = np.random.default_rng(0)
    for images, target in ((240, 0.05), (500, 0.02), (500, 0.05)):
        kept, given = 0, 0.0
        for _ in range(200):
            chosen = choose_threshold(*drawn(images, random), target)
            probabilities, truth = drawn(images // 4, random)
            answered = probabilities.max(axis=1) > chosen.threshold
            wrong = int((probabilities.argmax(axis=1) != truth)[answered].sum())
            kept += wrong <= target * answered.sum()
            given += chosen.answered / 200

        assert kept >= 180
        assert given > 0.2  # to answer nothing would keep any promise


@st.composite
def judged(draw: st.DrawFn) -> tuple[FloatArray, Index]:
    rows = draw(st.lists(st.tuples(st.floats(0.5, 1, width=16), st.booleans()), min_size=1, max_size=60))
    copies = draw(st.integers(1, 10))
    return answers([sure for sure, _ in rows] * copies, [right for _, right in rows] * copies)


@given(judged(), st.floats(0.01, 0.9))
def test_the_share_that_is_answered_is_that_above_the_threshold(drawn: tuple[FloatArray, Index], target: float) -> None:
    probabilities, truth = drawn

    chosen = choose_threshold(probabilities, truth, target)

    given = np.array([not chosen.abstains(float(p)) for p in probabilities.max(axis=1)])
    assert given.mean() == pytest.approx(chosen.answered)
    assert chosen.images == len(truth)
    if given.any():
        assert float((probabilities.argmax(axis=1) != truth)[given].mean()) == pytest.approx(chosen.error)
        assert chosen.error <= target


@given(judged(), st.floats(0.01, 0.4), st.floats(0, 0.4))
def test_who_allows_more_mistakes_is_answered_as_much_or_more(
    drawn: tuple[FloatArray, Index], target: float, more: float
) -> None:
    strict, lax = (choose_threshold(*drawn, each) for each in (target, target + more))

    assert strict.threshold >= lax.threshold


@pytest.mark.parametrize("target", [0.01, 0.02, 0.05, 0.3, 0.6])
def test_it_takes_so_many_images_without_a_mistake(target: float) -> None:
    enough = fewest_images(target)

    assert choose_threshold(*answers([0.9] * enough, [True] * enough), target).answered == 1
    assert choose_threshold(*answers([0.9] * (enough - 1), [True] * (enough - 1)), target).answered == 0


def test_where_nothing_can_be_promised_every_answer_is_refused() -> None:
    chosen = choose_threshold(*answers([0.9] * 500, [True, False] * 250), 0.02)

    assert (chosen.threshold, chosen.answered) == (1, 0)
    assert chosen.abstains(1.0)


def test_a_head_that_errs_rarely_enough_answers_everything() -> None:
    chosen = choose_threshold(*answers([0.6] * 300, [True] * 300), 0.05)

    assert (chosen.threshold, chosen.answered) == (0, 1)
    assert not chosen.abstains(0.1)


def test_near_duplicates_are_one_picture_of_evidence() -> None:
    features = blobs([100, 100], 12, apart=8)
    fitted = fit(features)
    in_triples = replace(features, group=np.arange(200) // 3)

    alone, together = (abstention(fitted.unseen, each, 0.02) for each in (features, in_triples))

    assert alone is not None
    assert together is not None
    assert (alone.images, together.images) == (200, 67)
    assert alone.answered == 1
    assert together.answered == 0  # 67 pictures cannot show it


def test_pictures_that_count_alike_are_evidence_as_they_are_whatever_they_count() -> None:
    probabilities, truth = drawn(300, np.random.default_rng(1))

    plain, halved = (choose_threshold(probabilities, truth, 0.05, weight) for weight in (None, np.full(300, 0.5)))

    assert plain.model_dump() == pytest.approx(halved.model_dump())


def test_a_mistake_that_counts_little_costs_little() -> None:
    right = np.arange(400) % 20 != 0
    probabilities, truth = answers(np.linspace(0.99, 0.6, 400), right)

    plain, weighed = (choose_threshold(probabilities, truth, 0.04, weight) for weight in (None, right * 0.9 + 0.1))

    assert plain.answered < 0.5
    assert weighed.answered == 1
    assert weighed.error == pytest.approx(20 * 0.1 / (380 + 20 * 0.1))


def test_few_pictures_that_count_much_are_no_more_evidence_than_they_are() -> None:
    probabilities, truth = answers([0.9] * 400, [True] * 400)
    nearly_all_of_a_few = np.where(np.arange(400) < 50, 1.0, 1e-6)

    assert choose_threshold(probabilities, truth, 0.02).answered == 1
    assert choose_threshold(probabilities, truth, 0.02, nearly_all_of_a_few).answered == 0


def test_a_picture_that_counts_nothing_in_the_fit_says_nothing_of_abstention() -> None:
    features = blobs([100, 100], 12, apart=8)
    fitted = fit(features)
    weight = np.where(np.arange(200) < 60, 0.0, 1.0)

    kept = abstention(fitted.unseen, replace(features, weight=weight), 0.02)

    assert kept is not None
    assert kept.images == 140


def test_without_a_target_there_is_no_threshold() -> None:
    features = blobs([20, 20], 6)

    assert abstention(fit(features).unseen, features, None) is None


def test_the_curve_ends_at_the_accuracy_of_all_answers() -> None:
    found = selective(*answers([0.9] * 10 + [0.6] * 10, [True] * 10 + [False] * 5 + [True] * 5))

    assert found is not None
    assert found.answered[-1] == 1
    assert found.accuracy[-1] == pytest.approx(0.75)
    assert found.accuracy[9] == 1
    assert found.images == 20
    assert selective(np.empty((0, 2), np.float32), np.empty(0, np.int64)) is None


def test_a_share_is_typed_as_a_percentage_or_a_number() -> None:
    assert share_of("2%", "--target-error") == share_of("0.02", "--target-error") == 0.02
    with pytest.raises(typer.BadParameter, match="need a share"):
        share_of("little", "--target-error")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_target_error_that_makes_no_sense_is_refused_by_the_name_of_the_flag(share: float) -> None:
    with pytest.raises(InvalidRequestError, match="--target-error"):
        TrainSettings(Path("photos"), target_error=share)
