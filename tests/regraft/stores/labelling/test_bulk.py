from collections.abc import Callable
from itertools import repeat

import pytest

from regraft.errors import InvalidRequestError, NotFoundError, OverloadedError, PreconditionError
from regraft.label_rules import image_hash
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.bulk import MOST, BulkResult
from tests.regraft.stores.conftest import MODEL, data, labels_by_hash

HASHES = [image_hash(data(number)) for number in range(6)]


@pytest.fixture
def store(examples_store: ExamplesStore) -> ExamplesStore:
    """Five red pictures from a phone; the sixth is no example."""
    for number in range(5):
        examples_store.add(MODEL, data(number), "red", "a phone")
    return examples_store


def lines_of(store: ExamplesStore, sha256: str) -> list[tuple[str | None, str]]:
    return [(entry.label, entry.annotator) for entry in store.labels.history(MODEL, sha256)]


def test_many_examples_get_a_label_each_with_one_line_of_history(store: ExamplesStore) -> None:
    store.labels.relabel(MODEL, HASHES[0], "green")
    store.labels.remove(MODEL, HASHES[1])

    changed = store.bulk.relabel(MODEL, [*HASHES[:4], HASHES[2]], "green", annotator="ada", caller="phone")

    assert changed == BulkResult(changed=3, unchanged=1)
    assert labels_by_hash(store) == dict.fromkeys(HASHES[:4], "green") | {HASHES[4]: "red"}
    assert lines_of(store, HASHES[0]) == [("red", ""), ("green", "")]
    assert lines_of(store, HASHES[1]) == [("red", ""), (None, ""), ("green", "ada")]
    assert lines_of(store, HASHES[2]) == [("red", ""), ("green", "ada")]
    assert store.labels.find(MODEL, HASHES[2]).source == "a phone"
    assert store.labels.find(MODEL, HASHES[2]).annotator == "ada"


def test_one_that_never_was_an_example_leaves_all_as_they_were(store: ExamplesStore) -> None:
    before = store.labels.in_force(MODEL)
    changes: list[Callable[[], object]] = [
        lambda: store.bulk.relabel(MODEL, HASHES, "green"),
        lambda: store.bulk.remove(MODEL, HASHES),
        lambda: store.bulk.restore(MODEL, HASHES),
    ]
    for change in changes:
        with pytest.raises(NotFoundError, match=f"no example '{HASHES[5]}'.*nothing was changed"):
            change()

    assert store.labels.in_force(MODEL) == before
    assert all(len(lines_of(store, sha256)) == 1 for sha256 in HASHES[:5])


def test_what_was_removed_together_is_restored_with_the_labels_that_it_had(store: ExamplesStore) -> None:
    store.labels.relabel(MODEL, HASHES[1], "green")

    assert store.bulk.remove(MODEL, HASHES[:3], why="blurred") == BulkResult(3, 0)
    assert store.bulk.remove(MODEL, HASHES[:4]) == BulkResult(1, 3), "repeated, it removes what is left"
    assert store.labels.removed(MODEL) == set(HASHES[:4])
    assert store.bulk.restore(MODEL, HASHES[:5], annotator="ada") == BulkResult(4, 1)

    assert labels_by_hash(store) == dict.fromkeys(HASHES[:5], "red") | {HASHES[1]: "green"}
    assert store.labels.find(MODEL, HASHES[0]).source == "a phone"
    assert lines_of(store, HASHES[0]) == [("red", ""), (None, ""), ("red", "ada")]


def test_what_was_removed_before_its_label_was_renamed_is_restored_under_the_new_name(store: ExamplesStore) -> None:
    store.labels.remove(MODEL, HASHES[0])
    store.label_changes.rename(MODEL, "red", "crimson")
    store.add(MODEL, data(0), "red")
    store.labels.remove(MODEL, HASHES[0])
    store.labels.remove(MODEL, HASHES[1])
    store.bulk.restore(MODEL, HASHES[:2])

    assert labels_by_hash(store)[HASHES[0]] == "red", "it was called so after the change"
    assert labels_by_hash(store)[HASHES[1]] == "crimson"


def test_every_label_counts_once_towards_the_quota(store: ExamplesStore) -> None:
    with pytest.raises(PreconditionError, match="quota: 5 labels at once; a caller may set 4 within an hour"):
        store.bulk.relabel(MODEL, HASHES[:5], "green", caller="phone", hourly_quota=4)
    store.bulk.relabel(MODEL, HASHES[:3], "green", caller="phone", hourly_quota=4)
    with pytest.raises(OverloadedError, match="quota: phone set 4 labels within an hour"):
        store.bulk.remove(MODEL, HASHES[3:5], caller="phone", hourly_quota=4)
    store.bulk.relabel(MODEL, HASHES[:4], "green", caller="phone", hourly_quota=4)

    assert labels_by_hash(store) == dict.fromkeys(HASHES[:4], "green") | {HASHES[4]: "red"}


@pytest.mark.parametrize("hashes", [[], ["red"], [HASHES[0][:12]], [HASHES[0].upper()], list(repeat("x", MOST + 1))])
def test_a_change_names_one_to_ten_thousand_whole_hashes(examples_store: ExamplesStore, hashes: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match="sha256: "):
        examples_store.bulk.remove(MODEL, hashes)


def test_a_label_that_is_none_changes_nothing(store: ExamplesStore) -> None:
    with pytest.raises(InvalidRequestError, match="label 'a/b'"):
        store.bulk.relabel(MODEL, HASHES[:5], "a/b")
    with pytest.raises(InvalidRequestError, match="why: control characters"):
        store.bulk.remove(MODEL, HASHES[:5], why="two\nlines")

    assert labels_by_hash(store) == dict.fromkeys(HASHES[:5], "red")
