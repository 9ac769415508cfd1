from regraft.label_rules import image_hash
from regraft.stores.examples import ExamplesStore
from regraft.stores.labels import NewExample
from tests.regraft.stores.conftest import MODEL, data


def test_a_side_that_was_decided_stays_whatever_is_said_or_removed_later(examples_store: ExamplesStore) -> None:
    examples_store.add_all(MODEL, [NewExample(data(1), "red", group="patient 7")])
    examples_store.split.keep_sides(MODEL, {image_hash(data(1)): True, image_hash(data(2)): False})

    examples_store.split.keep_sides(
        MODEL, {image_hash(data(1)): False, image_hash(data(2)): True, image_hash(data(3)): True}
    )
    examples_store.add_all(MODEL, [NewExample(data(2), "red", group="patient 8")])
    examples_store.labels.remove(MODEL, image_hash(data(1)))

    assert examples_store.split.sides(MODEL) == {
        image_hash(data(1)): True,
        image_hash(data(2)): False,
        image_hash(data(3)): True,
    }
    assert examples_store.split.sides("another") == {}
    assert examples_store.labels.find(MODEL, image_hash(data(2))).group == "patient 8"


def test_a_group_alone_is_no_side(examples_store: ExamplesStore) -> None:
    examples_store.add_all(MODEL, [NewExample(data(1), "red", group="patient 7")])

    assert examples_store.split.sides(MODEL) == {}
