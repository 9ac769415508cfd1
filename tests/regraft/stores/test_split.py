from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft.label_rules import image_hash
from regraft.stores.examples import ExamplesStore
from regraft.stores.labels import NewExample

MODEL = "colours"


def data(number: int) -> bytes:
    return f"picture {number}".encode() * 50


@pytest.fixture
def store(tmp_path: Path, database: str) -> Iterator[ExamplesStore]:
    store = ExamplesStore(tmp_path / "examples", database)
    yield store
    store.close()


def test_a_side_that_was_decided_stays_whatever_is_said_or_removed_later(store: ExamplesStore) -> None:
    store.add_all(MODEL, [NewExample(data(1), "red", group="patient 7")])
    store.split.keep_sides(MODEL, {image_hash(data(1)): True, image_hash(data(2)): False})

    store.split.keep_sides(MODEL, {image_hash(data(1)): False, image_hash(data(2)): True, image_hash(data(3)): True})
    store.add_all(MODEL, [NewExample(data(2), "red", group="patient 8")])
    store.labels.remove(MODEL, image_hash(data(1)))

    assert store.split.sides(MODEL) == {
        image_hash(data(1)): True,
        image_hash(data(2)): False,
        image_hash(data(3)): True,
    }
    assert store.split.sides("another") == {}
    assert store.labels.find(MODEL, image_hash(data(2))).group == "patient 8"


def test_a_group_alone_is_no_side(store: ExamplesStore) -> None:
    store.add_all(MODEL, [NewExample(data(1), "red", group="patient 7")])

    assert store.split.sides(MODEL) == {}
