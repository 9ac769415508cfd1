from collections import Counter

import numpy as np
import pytest

from regraft.model.artifact import FloatArray, Head
from regraft.model.card import EmbeddingKey
from regraft.stores.requests import KeptRequest
from serving.retraining.suggestions import FEW_EXAMPLES, Reason, suggest
from tests.tiny import COLOURS, tiny_head

LABELS = ("red", "green")
HEAD: Head = tiny_head(LABELS)
MANY = {"red": 500, "green": 500}
THRESHOLD = 0.15


def embedding(label: str, noise: float, generator: np.random.Generator) -> FloatArray:
    mean = np.repeat(COLOURS[label], 4) / 255
    return np.asarray(mean + noise * generator.normal(size=12), np.float32)


def requests_of(embeddings: list[FloatArray]) -> list[KeptRequest]:
    key = EmbeddingKey("b" * 64, "1" * 64)
    return [
        KeptRequest(f"id{n}", "colours", 1, f"{n:064}", "red", 1.0, 0.0, key, vector)
        for n, vector in enumerate(embeddings)
    ]


@pytest.fixture
def pictures() -> list[KeptRequest]:
    """40 red, 40 green, then 5 between the two, then 5 blue, which the head does not know."""
    generator = np.random.default_rng(0)
    between = [
        np.float32(0.5) * (embedding("red", 0.1, generator) + embedding("green", 0.1, generator)) for _ in range(5)
    ]
    clear = [embedding(label, 0.1, generator) for label in ("red", "green") for _ in range(40)]
    return requests_of(clear + between + [embedding("blue", 0.1, generator) for _ in range(5)])


def number(suggestion_id: str) -> int:
    return int(suggestion_id.removeprefix("id"))


def test_nothing_was_kept_nothing_is_proposed() -> None:
    assert suggest([], HEAD, LABELS, THRESHOLD, MANY, 10) == []


def test_with_enough_examples_the_uncertain_and_the_novel_come_in_turn(pictures: list[KeptRequest]) -> None:
    found = suggest(pictures, HEAD, LABELS, THRESHOLD, MANY, 10, seed=0)

    by_reason = {reason: [number(s.request.id) for s in found if s.reason is reason] for reason in Reason}
    assert len(found) == 10
    assert len(by_reason[Reason.RANDOM]) == 2
    assert len(by_reason[Reason.UNCERTAIN]) >= 3
    assert {*by_reason[Reason.NOVEL]} <= {*range(85, 90)}
    assert by_reason[Reason.NOVEL]
    assert {*by_reason[Reason.UNCERTAIN][:3]} <= {*range(80, 90)}
    assert by_reason[Reason.TYPICAL] == []


def test_while_a_class_has_few_examples_its_typical_pictures_come_first(pictures: list[KeptRequest]) -> None:
    found = suggest(pictures, HEAD, LABELS, THRESHOLD, {"red": 500, "green": FEW_EXAMPLES - 3}, 10, seed=0)

    typical = [suggestion for suggestion in found if suggestion.reason is Reason.TYPICAL]
    assert len(typical) == 3
    assert found[:3] == typical
    assert {suggestion.label for suggestion in typical} == {"green"}
    assert all(40 <= number(suggestion.request.id) < 80 for suggestion in typical)


def test_scarce_classes_take_turns(pictures: list[KeptRequest]) -> None:
    found = suggest(pictures, HEAD, LABELS, THRESHOLD, {}, 10, seed=0)

    assert Counter(s.label for s in found if s.reason is Reason.TYPICAL) == {"red": 4, "green": 4}


def test_no_picture_is_proposed_twice_nor_one_that_is_nearly_the_same() -> None:
    generator = np.random.default_rng(0)
    one, other = embedding("red", 0.1, generator), embedding("green", 0.1, generator)
    copies = requests_of([one] * 20 + [other] * 20)

    found = suggest(copies, HEAD, LABELS, THRESHOLD, MANY, 10, seed=0)

    proposed = [suggestion.request.id for suggestion in found]
    assert len(proposed) == len({*proposed})
    assert sum(suggestion.reason is not Reason.RANDOM for suggestion in found) <= 1


def test_the_random_share_knows_nothing_of_what_the_model_thinks(pictures: list[KeptRequest]) -> None:
    drawn: Counter[int] = Counter()
    for seed in range(400):
        found = suggest(pictures, HEAD, LABELS, THRESHOLD, MANY, 5, seed=seed)
        drawn.update(number(suggestion.request.id) for suggestion in found if suggestion.reason is Reason.RANDOM)

    assert drawn.total() == 400
    assert sum(drawn[n] for n in range(80)) == pytest.approx(400 * 80 / 90, abs=40)  # six standard deviations


@pytest.mark.parametrize("count", [1, 2, 500])
def test_never_more_than_asked_for_and_always_one_by_lot(pictures: list[KeptRequest], count: int) -> None:
    found = suggest(pictures, HEAD, LABELS, THRESHOLD, MANY, count, seed=1)

    assert len(found) <= min(count, len(pictures))
    assert any(suggestion.reason is Reason.RANDOM for suggestion in found)


def test_a_suggestion_says_what_the_head_that_serves_makes_of_it(pictures: list[KeptRequest]) -> None:
    (found, *_) = suggest(pictures, HEAD, LABELS, THRESHOLD, {"green": 0, "red": 500}, 10, seed=0)

    probabilities = HEAD.probabilities(found.request.embedding[None])[0]
    assert found.label == LABELS[int(probabilities.argmax())]
    assert found.probability == pytest.approx(float(probabilities.max()))
    assert found.novelty == pytest.approx(float(HEAD.novelty(found.request.embedding[None])[0]), abs=1e-5)
