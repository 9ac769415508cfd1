import unicodedata
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from regraft.errors import InvalidRequestError, NotFoundError, OverloadedError, PreconditionError, StorageError
from regraft.label_rules import image_hash
from regraft.stores.database.engine import open_database
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.label_changes import LabelChanges
from regraft.stores.labelling.present_names import KnownLabels
from tests.regraft.stores.conftest import MODEL, data, labels_by_hash

HASHES = [image_hash(data(number)) for number in range(3)]


@pytest.fixture
def store(examples_store: ExamplesStore) -> ExamplesStore:
    """Two daisies, a rose, and a daisy of another model."""
    for number, label in enumerate(("daisy", "daisy", "rose")):
        examples_store.add(MODEL, data(number), label, "a phone")
    examples_store.add("another", data(0), "daisy")
    return examples_store


def labels_of(store: ExamplesStore) -> list[str]:
    found = labels_by_hash(store)
    return [found.get(sha256, "") for sha256 in HASHES]


def test_a_renamed_label_takes_its_examples_along_with_a_line_of_history_each(store: ExamplesStore) -> None:
    changed = store.label_changes.rename(MODEL, "daisy", "marguerite", annotator="ada", caller="page", why="French")

    assert changed.examples == 2
    assert changed.change.why == "French"
    assert labels_of(store) == ["marguerite", "marguerite", "rose"]
    assert store.labels.in_force("another")[0].label == "daisy"
    _, entry = store.labels.history(MODEL, HASHES[0])
    assert (entry.label, entry.source, entry.annotator, entry.caller) == (
        "marguerite",
        "renamed from daisy",
        "ada",
        "page",
    )
    assert store.labels.find(MODEL, HASHES[0]).source == "a phone"
    assert store.labels.find(MODEL, HASHES[0]).annotator == "", "nobody looked at this very picture"


def test_a_change_that_is_asked_for_again_is_answered_as_before(store: ExamplesStore) -> None:
    first = store.label_changes.rename(MODEL, "daisy", "marguerite")

    assert store.label_changes.rename(MODEL, "daisy", "marguerite") == first
    assert store.label_changes.since(MODEL) == [first.change]
    removed = store.label_changes.remove(MODEL, "rose")
    assert store.label_changes.remove(MODEL, "rose") == removed
    with pytest.raises(NotFoundError, match="no label 'daisy' any more: label 'daisy' is called 'marguerite' since"):
        store.label_changes.rename(MODEL, "daisy", "ox-eye")


def test_a_merge_is_to_be_asked_for(store: ExamplesStore) -> None:
    with pytest.raises(PreconditionError, match="'rose' is there already, with 1 pictures"):
        store.label_changes.rename(MODEL, "daisy", "rose")
    with pytest.raises(NotFoundError, match="no label 'tulip' to merge with"):
        store.label_changes.rename(MODEL, "daisy", "tulip", merge=True)
    assert labels_of(store) == ["daisy", "daisy", "rose"]

    store.label_changes.rename(MODEL, "daisy", "rose", merge=True)

    assert labels_of(store) == ["rose"] * 3


def test_a_label_that_only_the_served_version_knows_is_renamed_and_merged_too(store: ExamplesStore) -> None:
    known = KnownLabels(("tulip", "lily"))

    assert store.label_changes.rename(MODEL, "tulip", "lily", merge=True, known=known).examples == 0
    with pytest.raises(PreconditionError, match="'lily' is there already, with 0 pictures"):
        store.label_changes.rename(MODEL, "daisy", "lily", known=known)
    with pytest.raises(NotFoundError, match="no label 'tulip' any more"):
        store.label_changes.remove(MODEL, "tulip", known=known)
    assert store.label_changes.rename(MODEL, "daisy", "tulip", known=known).examples == 2, "the name is free again"


def test_a_removed_label_takes_its_examples_out_of_training_and_restores_them_by_hash(store: ExamplesStore) -> None:
    assert store.label_changes.remove(MODEL, "daisy", annotator="ada").examples == 2

    assert store.labels.removed(MODEL) == set(HASHES[:2])
    assert [entry.label for entry in store.labels.history(MODEL, HASHES[0])] == ["daisy", None]
    store.bulk.restore(MODEL, HASHES[:2])
    assert labels_of(store) == ["daisy", "daisy", "rose"]
    assert store.labels.find(MODEL, HASHES[0]).source == "a phone"


@pytest.mark.parametrize("new_label", ["daisy", unicodedata.normalize("NFD", "daisy"), "", "a/b", " rose"])
def test_a_label_is_renamed_to_another_that_is_one(store: ExamplesStore, new_label: str) -> None:
    with pytest.raises(InvalidRequestError, match="label"):
        store.label_changes.rename(MODEL, "daisy", new_label)
    with pytest.raises(NotFoundError, match="no label 'dasiy'"):
        store.label_changes.rename(MODEL, "dasiy", "marguerite")
    assert store.label_changes.since(MODEL) == []


def test_quarantine_outlives_a_new_name_but_no_merge(store: ExamplesStore) -> None:
    store.labels.quarantine(MODEL, {HASHES[0]: ("daisy", "read as rose")})

    store.label_changes.rename(MODEL, "daisy", "marguerite")
    assert store.labels.find(MODEL, HASHES[0]).quarantine == "read as rose"
    store.label_changes.rename(MODEL, "marguerite", "rose", merge=True)
    assert store.labels.find(MODEL, HASHES[0]).quarantine == ""


def test_a_change_of_a_label_does_not_use_up_the_quota_of_labels(store: ExamplesStore) -> None:
    store.label_changes.rename(MODEL, "daisy", "marguerite", caller="page")

    store.labels.relabel(MODEL, HASHES[2], "marguerite", caller="page", hourly_quota=1)
    with pytest.raises(OverloadedError, match="quota"):
        store.labels.relabel(MODEL, HASHES[1], "rose", caller="page", hourly_quota=1)


def test_changes_are_told_in_turn_and_from_a_time_on(store: ExamplesStore) -> None:
    made = [store.label_changes.rename(MODEL, *names).change for names in (("daisy", "x"), ("x", "y"), ("y", "z"))]

    assert store.label_changes.since(MODEL) == made
    assert store.label_changes.since(MODEL, made[1].at) == made[2:]
    assert made[0].at < made[1].at < made[2].at
    assert store.label_changes.since("another") == []


def test_a_rename_that_fails_between_any_two_steps_changes_nothing_and_may_be_asked_for_again(
    store: ExamplesStore, database: str
) -> None:
    engine = open_database(database)
    breakage = Breakage(engine)
    before = store.labels.in_force(MODEL), [store.labels.history(MODEL, sha256) for sha256 in HASHES]
    step = 0
    while breakage.breaks(step, lambda: LabelChanges(engine).rename(MODEL, "daisy", "rose", merge=True)):
        assert (store.labels.in_force(MODEL), [store.labels.history(MODEL, sha256) for sha256 in HASHES]) == before
        assert store.label_changes.since(MODEL) == []
        step += 1
    engine.dispose()

    assert step >= 4, "the change, the history, the examples, and what was asked before"
    assert labels_of(store) == ["rose"] * 3
    assert len(store.label_changes.since(MODEL)) == 1


class Breakage:
    """Breaks a transaction, as a database that goes away does."""

    def __init__(self, engine: Engine) -> None:
        self._left = 0
        event.listen(engine, "before_cursor_execute", self._count)

    def breaks(self, step: int, change: Callable[[], object]) -> bool:
        """Make a change, and return whether it broke at a step."""
        self._left = step + 1
        try:
            change()
        except StorageError:
            return True
        return False

    def _count(self, *_statement: object) -> None:
        self._left -= 1
        if not self._left:
            raise OperationalError("a statement", {}, Exception("the database went away"))
