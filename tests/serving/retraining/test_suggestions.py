from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.model.artifact import FloatArray
from serving.retraining.suggestions import Knowledge, Reason, suggest
from tests.tiny import COLOURS, tiny_head

LABELS = ("red", "green")
MANY = {"red": 500, "green": 500}
THRESHOLD = 0.15
NONE = np.empty((0, 12), np.float32)


def embedding(label: str, noise: float, generator: np.random.Generator) -> FloatArray:
    mean = np.repeat(COLOURS[label], 4) / 255
    return np.asarray(mean + noise * generator.normal(size=12), np.float32)


def knowing(examples: dict[str, int]) -> Knowledge:
    return Knowledge(tiny_head(LABELS), LABELS, THRESHOLD, examples)


@pytest.fixture
def pictures() -> FloatArray:
    """40 red, 40 green, then 5 between the two, then 5 blue, which the head does not know."""
    generator = np.random.default_rng(0)
    between = [
        np.float32(0.5) * (embedding("red", 0.1, generator) + embedding("green", 0.1, generator)) for _ in range(5)
    ]
    clear = [embedding(label, 0.1, generator) for label in ("red", "green") for _ in range(40)]
    return np.array(clear + between + [embedding("blue", 0.1, generator) for _ in range(5)])


def test_of_no_pictures_none_is_suggested() -> None:
    assert suggest(NONE, NONE, knowing(MANY), 10) == []


def test_with_enough_examples_the_uncertain_and_the_novel_are_suggested(pictures: FloatArray) -> None:
    found = suggest(pictures, NONE, knowing(MANY), 10, seed=0)

    by_reason = {reason: {each.row for each in found if each.reason is reason} for reason in Reason}
    assert 8 <= len(found) <= 10  # some are nearly the same
    assert len(by_reason[Reason.RANDOM]) == 2
    assert by_reason[Reason.TYPICAL] == set()
    assert by_reason[Reason.NOVEL]
    assert by_reason[Reason.NOVEL] <= {*range(80, 90)}
    assert {found[0].row, found[1].row} <= {*range(80, 90)}


def test_while_a_class_has_few_examples_its_typical_pictures_come_first(pictures: FloatArray) -> None:
    found = suggest(pictures[:80], NONE, knowing({"red": 500, "green": 1}), 10, seed=0)

    typical = [each for each in found if each.reason is Reason.TYPICAL]
    assert found[: len(typical)] == typical
    assert len(typical) >= 3
    assert {each.label for each in typical} == {"green"}
    assert typical[0].why.startswith("green has 1 example; stands for ")


def test_without_a_head_typical_pictures_of_each_kind_come_first(pictures: FloatArray) -> None:
    found = suggest(pictures, NONE, None, 5, seed=0)

    assert [each.reason for each in found] == [Reason.TYPICAL] * 4 + [Reason.RANDOM]
    kinds = {("red", "green", "between", "blue")[min(each.row // 40, 2) + (each.row >= 85)] for each in found}
    assert {"red", "green"} <= kinds
    assert all((each.label, each.probability, each.other_label) == ("", 0.0, "") for each in found)
    assert found[0].why == f"stands for {found[0].alike} pictures like it"


def test_what_is_like_a_labelled_picture_is_held_back(pictures: FloatArray) -> None:
    red, blue = pictures[:40], pictures[85:]

    found = suggest(np.concatenate([red, blue]), red + np.float32(1e-3), None, 20, seed=0)

    assert {each.row for each in found if each.reason is not Reason.RANDOM} <= {*range(40, 45)}


def test_of_pictures_that_are_nearly_the_same_one_is_suggested() -> None:
    generator = np.random.default_rng(0)
    one, other = embedding("red", 0.1, generator), embedding("green", 0.1, generator)

    found = suggest(np.array([one] * 20 + [other] * 20), NONE, knowing({}), 10, seed=0)

    chosen = [each.row for each in found if each.reason is not Reason.RANDOM]
    assert len({each.row for each in found}) == len(found)
    assert len(chosen) <= 1


def test_the_random_share_knows_nothing_of_what_the_model_thinks(pictures: FloatArray) -> None:
    drawn: Counter[int] = Counter()
    for seed in range(400):
        found = suggest(pictures, NONE, knowing(MANY), 5, seed=seed)
        drawn.update(each.row for each in found if each.reason is Reason.RANDOM)

    assert drawn.total() == 400
    assert sum(drawn[row] for row in range(80)) == pytest.approx(400 * 80 / 90, abs=40)  # six standard deviations


@given(
    count=st.integers(1, 60),
    pictures=st.integers(1, 40),
    labelled=st.integers(0, 20),
    with_head=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_never_more_than_asked_for_none_twice_and_always_one_by_lot(
    count: int, pictures: int, labelled: int, with_head: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(pictures + labelled, 12)).astype(np.float32)

    found = suggest(rows[:pictures], rows[pictures:], knowing(MANY) if with_head else None, count, seed)

    assert 1 <= len(found) <= min(count, pictures)
    assert len({each.row for each in found}) == len(found)
    assert [each.reason is Reason.RANDOM for each in found] == sorted(each.reason is Reason.RANDOM for each in found)
    assert found[-1].reason is Reason.RANDOM
    assert 0 <= sum(each.alike for each in found) <= pictures
    assert found == suggest(rows[:pictures], rows[pictures:], knowing(MANY) if with_head else None, count, seed)


def test_a_suggestion_says_what_the_head_that_serves_makes_of_it(pictures: FloatArray) -> None:
    (found, *_) = suggest(pictures[80:85], NONE, knowing(MANY), 5, seed=0)

    head, vector = tiny_head(LABELS), pictures[80 + found.row][None]
    probabilities = head.probabilities(vector)[0]
    best = int(probabilities.argmax())
    assert (found.label, found.other_label) == (LABELS[best], LABELS[1 - best])
    assert found.probability == pytest.approx(float(probabilities[best]))
    assert found.other_probability == pytest.approx(float(probabilities[1 - best]))
    assert found.novelty == pytest.approx(float(head.novelty(vector)[0]), abs=1e-5)
    reading = (
        f"between {found.label} ({found.probability:.2f}) and {found.other_label} ({found.other_probability:.2f}); "
    )
    beyond = f"novelty {found.novelty:.2f}, beyond {THRESHOLD:.2f}; "
    assert found.why.startswith(beyond if found.reason is Reason.NOVEL else reading)
