from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft.label_rules import image_hash
from regraft.model.card import EmbeddingKey
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.listing import Filter, Listed, Order, Place, Side
from regraft.stores.labelling.predictions import UNKNOWN_LABEL, Prediction, Unpredicted
from regraft.stores.labels import NewExample
from tests.regraft.stores.conftest import MODEL, data, labels_by_hash

HEAD = "h" * 16
EVERY = Filter()
HASHES = [image_hash(data(number)) for number in range(8)]
DOUBTS = [0.1, 0.97, 0.5, 0.95, 0.5, 0.0, UNKNOWN_LABEL, 0.2]


def answer(number: int) -> Prediction:
    doubt = DOUBTS[number]
    return Prediction(
        label="red" if doubt < 0.5 else "blue",
        probability=0.4 + number / 16,
        label_probability=None if doubt == UNKNOWN_LABEL else 1 - doubt,
        novelty=(5 * number % 8) / 8,
        doubt=doubt,
        is_right=0 <= doubt < 0.5,
        is_suspected=doubt > 0.9,
        is_unseen=True,
    )


@pytest.fixture
def store(examples_store: ExamplesStore) -> ExamplesStore:
    """Seven red pictures and a green one, which has no prediction."""
    for number in range(8):
        new = NewExample(data(number), "green" if number == 6 else "red", "a phone" if number % 2 else "a page", "ada")
        examples_store.add_all(MODEL, [new if number < 4 else NewExample(new.data, new.label, new.source)])
    predict(examples_store, range(7))
    examples_store.split.keep_sides(MODEL, {HASHES[0]: False, HASHES[1]: True, HASHES[2]: False})
    return examples_store


def predict(store: ExamplesStore, numbers: "range | list[int]", head: str = HEAD) -> None:
    labels = labels_by_hash(store)
    hashes = tuple(HASHES[number] for number in numbers)
    todo = Unpredicted(hashes, tuple(labels[each] for each in hashes), np.empty((len(hashes), 0), np.float32))
    store.predictions.put(MODEL, head, todo, [answer(number) for number in numbers])


def pages(store: ExamplesStore, wanted: Filter, order: Order, most: int) -> Iterator[list[Listed]]:
    after: Place | None = None
    while page := store.listing.page(MODEL, wanted, order, head=HEAD, after=after, most=most):
        yield page
        after = page[-1].place


def numbers(store: ExamplesStore, wanted: Filter = EVERY, order: Order = Order.HASH, head: str = HEAD) -> list[int]:
    return [HASHES.index(each.example.sha256) for each in store.listing.page(MODEL, wanted, order, head=head, most=99)]


def test_likely_wrong_labels_come_first_and_those_nobody_can_judge_last(store: ExamplesStore) -> None:
    found = numbers(store, order=Order.LIKELY_WRONG)

    assert found[:2] == [1, 3]
    assert set(found[2:4]) == {2, 4}
    assert found[4:] == [0, 5, 6], "the eighth has no prediction yet, and no place"


def test_the_least_sure_and_the_most_novel_come_first(store: ExamplesStore) -> None:
    assert numbers(store, order=Order.LEAST_SURE) == [0, 1, 2, 3, 4, 5, 6]
    assert numbers(store, order=Order.MOST_NOVEL) == sorted(range(7), key=lambda number: -(5 * number % 8))


def test_an_example_comes_with_its_answer_and_its_side(store: ExamplesStore) -> None:
    every = {HASHES.index(each.example.sha256): each for each in store.listing.page(MODEL, head=HEAD, most=99)}

    assert every[1].prediction == answer(1)
    assert every[7].prediction is None
    assert [every[number].side for number in (0, 1, 3)] == [Side.TRAINING, Side.HOLDOUT, Side.UNDECIDED]
    assert every[0].example.annotator == "ada"
    assert numbers(store, head="") == numbers(store), "without a head, too"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(label="green"), {6}),
        (Filter(side=Side.HOLDOUT), {1}),
        (Filter(side=Side.TRAINING), {0, 2}),
        (Filter(side=Side.UNDECIDED), {3, 4, 5, 6, 7}),
        (Filter(source="a phone"), {1, 3, 5, 7}),
        (Filter(annotator="ada"), {0, 1, 2, 3}),
        (Filter(is_right=True), {0, 5}),
        (Filter(is_right=False), {1, 2, 3, 4, 6}),
        (Filter(suspected=True), {1, 3}),
        (Filter(suspected=True, side=Side.HOLDOUT), {1}),
        (Filter(quarantined=True), {4}),
        (Filter(since="2000-01-01T00:00:00+00:00"), set(range(8))),
        (Filter(since="2999-01-01T00:00:00+00:00"), set()),
        (Filter(label="red", source="a phone", annotator="ada", is_right=False), {1, 3}),
    ],
)
def test_a_list_has_what_meets_every_condition(store: ExamplesStore, wanted: Filter, expected: set[int]) -> None:
    store.labels.quarantine(MODEL, {HASHES[4]: ("red", "read as blue")})

    assert set(numbers(store, wanted)) == expected


@given(
    order=st.sampled_from(Order),
    most=st.integers(1, 4),
    wanted=st.builds(Filter, source=st.sampled_from(["", "a phone"]), is_right=st.none() | st.booleans()),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_pages_have_every_example_once_in_one_order(
    store: ExamplesStore, order: Order, most: int, wanted: Filter
) -> None:
    found = list(pages(store, wanted, order, most))

    whole = store.listing.page(MODEL, wanted, order, head=HEAD, most=99)
    assert [each for page in found for each in page] == whole
    assert all(len(page) == most for page in found[:-1])


def test_an_example_that_was_relabelled_has_no_prediction_until_it_is_made_anew(store: ExamplesStore) -> None:
    store.labels.relabel(MODEL, HASHES[1], "blue")

    assert 1 not in numbers(store, order=Order.LIKELY_WRONG)
    assert store.predictions.pending(MODEL, HEAD) == 2
    predict(store, [1])
    assert 1 in numbers(store, order=Order.LIKELY_WRONG)
    assert store.predictions.pending(MODEL, HEAD) == 1


def test_another_head_has_predictions_of_its_own(store: ExamplesStore) -> None:
    predict(store, [2], head="g" * 16)

    assert numbers(store, order=Order.LEAST_SURE, head="g" * 16) == [2]
    assert store.predictions.pending(MODEL, "g" * 16) == 7
    assert store.predictions.drop_others(MODEL, {HEAD}, 100) == 1
    assert numbers(store, order=Order.LEAST_SURE, head="g" * 16) == []
    assert len(numbers(store, order=Order.LEAST_SURE)) == 7


def test_what_is_embedded_and_has_no_prediction_of_its_label_is_still_to_be_predicted(store: ExamplesStore) -> None:
    key = EmbeddingKey("b" * 64, "1" * 64)
    vectors = {HASHES[number]: np.full(3, number, np.float32) for number in (0, 1, 7)}
    store.embeddings.put(key, vectors)
    store.labels.relabel(MODEL, HASHES[1], "blue")

    todo = store.predictions.missing(MODEL, HEAD, key, most=10)

    assert todo.sha256 == tuple(sorted([HASHES[1], HASHES[7]]))
    assert dict(zip(todo.sha256, todo.label, strict=True)) == {HASHES[1]: "blue", HASHES[7]: "red"}
    np.testing.assert_array_equal(todo.embedding, [vectors[each] for each in todo.sha256])
    assert len(store.predictions.missing(MODEL, HEAD, key, most=10, after=todo.sha256[0])) == 1
    assert len(store.predictions.missing("another", HEAD, key, most=10)) == 0
