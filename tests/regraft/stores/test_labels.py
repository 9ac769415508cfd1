import unicodedata
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypedDict

import numpy as np
import pytest
from sqlalchemy import update

from regraft.errors import NotFoundError, OverloadedError, PreconditionError
from regraft.label_rules import image_hash
from regraft.model.card import EmbeddingKey
from regraft.stores.database.engine import open_database, transaction
from regraft.stores.database.tables import examples, label_history
from regraft.stores.examples import ExamplesStore
from regraft.stores.labels import AddOutcome, Example, NewExample
from tests.regraft.stores.conftest import MODEL, data


class Quota(TypedDict):
    caller: str
    hourly_quota: int


MOEWE = "Möwe"
MAC = unicodedata.normalize("NFD", MOEWE)
"""The same, as a Mac calls a folder."""


def test_the_same_picture_with_another_label_is_relabelled(examples_store: ExamplesStore) -> None:
    examples_store.add(MODEL, data(1), "red")

    assert examples_store.add(MODEL, data(1), "green") == AddOutcome.RELABELLED
    assert examples_store.labels.in_force(MODEL) == [Example(image_hash(data(1)), "green")]
    assert examples_store.add(MODEL, data(1), "green") == AddOutcome.DUPLICATE
    assert examples_store.add(MODEL, data(1), "red") == AddOutcome.RELABELLED


def test_a_label_from_a_mac_is_no_second_label(examples_store: ExamplesStore) -> None:
    examples_store.add(MODEL, data(1), MAC)

    assert examples_store.add(MODEL, data(1), MOEWE) == AddOutcome.DUPLICATE
    assert examples_store.labels.relabel(MODEL, image_hash(data(1)), MAC) == Example(image_hash(data(1)), MOEWE)
    assert [entry.label for entry in examples_store.labels.history(MODEL, image_hash(data(1)))] == [MOEWE]
    assert [example.label for example in examples_store.labels.in_force(MODEL)] == [MOEWE]


def test_a_change_bound_to_a_state_is_made_in_that_state_only(examples_store: ExamplesStore) -> None:
    examples_store.add(MODEL, data(1), "red")
    labels, sha256 = examples_store.labels, image_hash(data(1))
    seen = labels.find(MODEL, sha256)
    changed = labels.relabel(MODEL, sha256, "green", etag=seen.etag)
    assert labels.find(MODEL, sha256).etag == changed.etag != seen.etag

    changes: list[Callable[[], object]] = [
        lambda: labels.relabel(MODEL, sha256, "blue", etag=seen.etag),
        lambda: labels.remove(MODEL, sha256, etag=seen.etag),
        lambda: labels.release(MODEL, sha256, etag=seen.etag),
    ]
    for change in changes:
        with pytest.raises(PreconditionError, match=f"etag: example '{sha256}' has changed since"):
            change()
    assert labels.find(MODEL, sha256) == changed

    labels.quarantine(MODEL, {sha256: ("green", "a test")})
    doubted = labels.find(MODEL, sha256)
    assert doubted.etag != changed.etag
    labels.release(MODEL, sha256, etag=doubted.etag)
    labels.remove(MODEL, sha256, etag=labels.find(MODEL, sha256).etag)
    removed = labels.find(MODEL, sha256, or_removed=True)
    assert labels.relabel(MODEL, sha256, "red", etag=removed.etag).label == "red"


def test_a_store_that_has_both_forms_of_a_label_has_one_label(examples_store: ExamplesStore, database: str) -> None:
    examples_store.add(MODEL, data(1), MOEWE)
    examples_store.add(MODEL, data(2), "x")
    engine = open_database(database)
    with transaction(engine, "a test") as connection:  # as an earlier state wrote it
        connection.execute(update(examples).where(examples.c.label == "x").values(label=MAC))
    engine.dispose()

    assert {example.label for example in examples_store.labels.in_force(MODEL)} == {MOEWE}
    assert examples_store.labels.find(MODEL, image_hash(data(2))).label == MOEWE
    assert examples_store.add(MODEL, data(2), MOEWE) == AddOutcome.DUPLICATE


def test_without_embedding_names_what_is_still_to_be_embedded(examples_store: ExamplesStore) -> None:
    key, other = EmbeddingKey("b" * 64, "1" * 64), EmbeddingKey("b" * 64, "2" * 64)
    hashes = [image_hash(data(number)) for number in range(5)]
    for number in range(5):
        examples_store.add(MODEL, data(number), "red")
    examples_store.add("another", data(99), "red")
    examples_store.embeddings.put(key, {hashes[1]: np.zeros(3, np.float32), hashes[3]: np.zeros(3, np.float32)})
    examples_store.embeddings.put(other, {hashes[0]: np.zeros(3, np.float32)})

    missing = examples_store.labels.without_embedding(MODEL, key, limit=10)
    assert list(missing) == [hashes[0], hashes[2], hashes[4]], "in the order of arrival"
    assert list(examples_store.labels.without_embedding(MODEL, key, limit=2)) == [hashes[0], hashes[2]]
    assert list(examples_store.labels.without_embedding(MODEL, key, limit=2, after=missing[hashes[2]])) == [hashes[4]]
    assert list(examples_store.labels.without_embedding(MODEL, other, limit=10)) == hashes[1:]
    assert examples_store.labels.without_embedding("nobody", key, limit=10) == {}


def test_what_was_removed_waits_for_no_embedding_until_it_is_labelled_again(examples_store: ExamplesStore) -> None:
    key, sha256 = EmbeddingKey("b" * 64, "1" * 64), image_hash(data(1))
    examples_store.add(MODEL, data(1), "red")
    (seen,) = examples_store.labels.without_embedding(MODEL, key, limit=10).values()
    examples_store.labels.remove(MODEL, sha256)
    assert examples_store.labels.without_embedding(MODEL, key, limit=10) == {}

    examples_store.labels.relabel(MODEL, sha256, "green")

    assert list(examples_store.labels.without_embedding(MODEL, key, limit=10, after=seen)) == [sha256]


def test_every_label_that_a_picture_had_stays_in_its_history(examples_store: ExamplesStore) -> None:
    sha256 = image_hash(data(1))
    examples_store.add_all(MODEL, [NewExample(data(1), "red", "a camera", "ada", "request 1")], caller="10.0.0.1")
    examples_store.add(MODEL, data(1), "red")
    examples_store.labels.relabel(MODEL, sha256, "green", annotator="grace")
    examples_store.labels.remove(MODEL, sha256, source="blurred", annotator="ada")
    examples_store.add(MODEL, data(1), "blue")

    history = examples_store.labels.history(MODEL, sha256)

    assert [(entry.label, entry.source, entry.annotator) for entry in history] == [
        ("red", "a camera", "ada"),
        ("green", "", "grace"),
        (None, "blurred", "ada"),
        ("blue", "", ""),
    ]
    assert (history[0].request_id, history[0].caller) == ("request 1", "10.0.0.1")
    assert examples_store.labels.in_force(MODEL) == [Example(sha256, "blue")]


def test_an_example_keeps_its_source_when_it_is_relabelled_without_one(examples_store: ExamplesStore) -> None:
    examples_store.add(MODEL, data(1), "red", "a camera")
    sha256 = image_hash(data(1))

    assert examples_store.labels.relabel(MODEL, sha256, "green") == Example(sha256, "green", "a camera")

    assert examples_store.labels.in_force(MODEL) == [Example(sha256, "green", "a camera")]


def test_what_was_removed_is_in_force_no_more_until_it_is_added_again(examples_store: ExamplesStore) -> None:
    for number in (1, 2):
        examples_store.add(MODEL, data(number), "red")
    sha256 = image_hash(data(1))

    assert examples_store.labels.remove(MODEL, sha256) == Example(sha256, "red")

    assert examples_store.labels.in_force(MODEL) == [Example(image_hash(data(2)), "red")]
    assert examples_store.labels.removed(MODEL) == {sha256}
    assert examples_store.labels.removed("another") == set()
    assert examples_store.image_file(sha256).read_bytes() == data(1)
    assert examples_store.add(MODEL, data(1), "green") == AddOutcome.ACCEPTED
    assert examples_store.labels.removed(MODEL) == set()


def test_what_is_no_example_can_neither_be_relabelled_nor_removed(examples_store: ExamplesStore) -> None:
    with pytest.raises(NotFoundError, match="model 'colours' has no example 'ab12'"):
        examples_store.labels.relabel(MODEL, "ab12", "red")
    with pytest.raises(NotFoundError, match="no example"):
        examples_store.labels.remove(MODEL, "ab12")


def test_relabelling_to_the_same_label_adds_nothing_to_the_history(examples_store: ExamplesStore) -> None:
    examples_store.add(MODEL, data(1), "red")

    examples_store.labels.relabel(MODEL, image_hash(data(1)), "red")

    assert len(examples_store.labels.history(MODEL, image_hash(data(1)))) == 1


def test_an_example_is_found_by_the_beginning_of_its_hash(examples_store: ExamplesStore) -> None:
    for number in range(40):
        examples_store.add(MODEL, data(number), "red")
    sha256 = image_hash(data(1))

    assert examples_store.labels.find(MODEL, sha256[:12]) == Example(sha256, "red")
    for beginning in ("", "not a hash"):
        with pytest.raises(NotFoundError, match="has no examples whose hash begins"):
            examples_store.labels.find(MODEL, beginning)
    digit = Counter(example.sha256[0] for example in examples_store.labels.in_force(MODEL)).most_common(1)[0][0]
    with pytest.raises(NotFoundError, match=f"examples whose hash begins '{digit}'"):
        examples_store.labels.find(MODEL, digit)


def test_a_group_is_kept_with_the_picture_also_when_it_is_stated_later_and_outlives_a_removal(
    examples_store: ExamplesStore,
) -> None:
    examples_store.add_all(MODEL, [NewExample(data(1), "red", group="patient 7"), NewExample(data(2), "red")])
    later = examples_store.add_all(MODEL, [NewExample(data(2), "red", group="patient 8"), NewExample(data(1), "red")])
    examples_store.labels.remove(MODEL, image_hash(data(1)))
    brought_back = examples_store.labels.relabel(MODEL, image_hash(data(1)), "blue")

    assert later == [AddOutcome.DUPLICATE, AddOutcome.DUPLICATE]
    assert brought_back.group == "patient 7"
    assert {example.sha256: example.group for example in examples_store.labels.in_force(MODEL)} == {
        image_hash(data(1)): "patient 7",
        image_hash(data(2)): "patient 8",
    }
    assert examples_store.labels.in_force("another") == []


def test_what_is_rejected_changes_no_group(examples_store: ExamplesStore) -> None:
    examples_store.add_all(MODEL, [NewExample(data(1), "red", group="mine")], caller="one", hourly_quota=1)

    examples_store.add_all(MODEL, [NewExample(data(1), "blue", group="yours")], caller="one", hourly_quota=1)

    assert examples_store.labels.find(MODEL, image_hash(data(1))).group == "mine"


def test_a_refused_label_is_not_counted_and_the_next_one_fits_when_the_oldest_is_an_hour_old(
    examples_store: ExamplesStore, database: str
) -> None:
    def send(*numbers: int) -> list[AddOutcome]:
        batch = [NewExample(data(number), "red") for number in numbers]
        return examples_store.add_all(MODEL, batch, caller="one", hourly_quota=3)

    def let_all_be(minutes: float) -> None:
        at = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="seconds")
        engine = open_database(database)
        with transaction(engine, "pretend that time passes") as connection:
            connection.execute(update(label_history).values(at=at))
        engine.dispose()

    assert examples_store.labels.next_label_fits_s("one", 3) == 0
    send(0, 1, 2)
    let_all_be(59.5)
    assert send(3, 4, 5) == [AddOutcome.REJECTED] * 3
    assert examples_store.labels.next_label_fits_s("one", 3) == pytest.approx(30, abs=20)
    assert examples_store.labels.next_label_fits_s("another", 3) == 0
    let_all_be(61)

    assert examples_store.labels.next_label_fits_s("one", 3) == 0
    assert send(3, 4, 5) == [AddOutcome.ACCEPTED] * 3


def test_relabelling_and_removing_have_a_caller_and_count_towards_its_quota(examples_store: ExamplesStore) -> None:
    for number in range(3):
        examples_store.add(MODEL, data(number), "red")
    one, two, three = (image_hash(data(number)) for number in range(3))
    quota: Quota = {"caller": "one", "hourly_quota": 2}

    examples_store.labels.relabel(MODEL, one, "green", **quota)
    examples_store.labels.relabel(MODEL, one, "green", **quota)  # changes nothing, and costs nothing
    examples_store.labels.remove(MODEL, two, **quota)
    with pytest.raises(OverloadedError, match="quota: one set 2 labels within an hour"):
        examples_store.labels.relabel(MODEL, three, "green", **quota)
    with pytest.raises(OverloadedError, match="quota"):
        examples_store.labels.remove(MODEL, three, **quota)

    assert [examples_store.labels.history(MODEL, sha256)[-1].caller for sha256 in (one, two)] == ["one", "one"]
    assert {example.sha256: example.label for example in examples_store.labels.in_force(MODEL)} == {
        one: "green",
        three: "red",
    }
    batch = [NewExample(data(9), "red")]
    assert examples_store.add_all(MODEL, batch, **quota) == [AddOutcome.REJECTED]
    examples_store.labels.relabel(MODEL, three, "green", caller="another", hourly_quota=2)


def test_what_was_removed_is_found_if_asked_for_and_relabelling_brings_it_back(examples_store: ExamplesStore) -> None:
    examples_store.add(MODEL, data(1), "red", "a camera")
    sha256 = image_hash(data(1))
    examples_store.labels.remove(MODEL, sha256, source="blurred")

    with pytest.raises(NotFoundError):
        examples_store.labels.find(MODEL, sha256)
    assert examples_store.labels.find(MODEL, sha256[:12], or_removed=True) == Example(sha256, "", "a camera")
    with pytest.raises(NotFoundError):
        examples_store.labels.find(MODEL, "not a hash", or_removed=True)
    with pytest.raises(NotFoundError):
        examples_store.labels.remove(MODEL, sha256)

    back = examples_store.labels.relabel(MODEL, sha256, "green")

    assert back == Example(sha256, "green", "a camera")
    assert examples_store.labels.in_force(MODEL) == [back]
    assert examples_store.labels.in_force(MODEL)[0].added_at == back.added_at
    assert [entry.label for entry in examples_store.labels.history(MODEL, sha256)] == ["red", None, "green"]


def test_a_label_in_quarantine_stays_there_until_it_is_released_or_another_is_given(
    examples_store: ExamplesStore,
) -> None:
    for number in range(3):
        examples_store.add("pets", f"picture {number}".encode(), "red")
    first, second, third = (example.sha256 for example in examples_store.labels.in_force("pets"))
    examples_store.labels.quarantine(
        "pets", {first: ("red", "a reason"), second: ("red", "a reason"), third: ("blue", "a reason")}
    )
    assert {example.sha256 for example in examples_store.labels.in_force("pets", quarantined=True)} == {
        first,
        second,
    }, "third is not blue"

    freed = examples_store.labels.release("pets", first, annotator="ada")
    changed = examples_store.labels.relabel("pets", second, "blue")

    assert (freed.label, freed.quarantine, freed.vouched_by) == ("red", "", "ada")
    assert (changed.label, changed.quarantine, changed.vouched_by) == ("blue", "", "")
    assert examples_store.labels.in_force("pets", quarantined=True) == []
    examples_store.labels.quarantine("pets", {first: ("red", "again"), second: ("blue", "again")})
    assert [example.sha256 for example in examples_store.labels.in_force("pets", quarantined=True)] == [second], (
        "ada vouched for the first"
    )


def test_who_released_an_example_is_in_its_history(examples_store: ExamplesStore) -> None:
    examples_store.add("pets", b"a picture", "red")
    sha256 = examples_store.labels.in_force("pets")[0].sha256
    examples_store.labels.quarantine("pets", {sha256: ("red", "a reason")})

    examples_store.labels.release("pets", sha256, annotator="ada", caller="ops")

    last = examples_store.labels.history("pets", sha256)[-1]
    assert (last.label, last.source, last.annotator, last.caller) == ("red", "released from quarantine", "ada", "ops")


def test_only_what_is_in_quarantine_can_be_released(examples_store: ExamplesStore) -> None:
    examples_store.add("pets", b"a picture", "red")

    with pytest.raises(PreconditionError, match="is not in quarantine"):
        examples_store.labels.release("pets", examples_store.labels.in_force("pets")[0].sha256)
    with pytest.raises(NotFoundError, match="no example"):
        examples_store.labels.release("pets", "0" * 64)


def test_the_same_label_sent_again_does_not_end_the_quarantine_and_another_does(examples_store: ExamplesStore) -> None:
    examples_store.add("pets", b"a picture", "red")
    sha256 = examples_store.labels.in_force("pets")[0].sha256
    examples_store.labels.quarantine("pets", {sha256: ("red", "a reason")})

    assert examples_store.add("pets", b"a picture", "red") is AddOutcome.DUPLICATE
    assert [example.quarantine for example in examples_store.labels.in_force("pets")] == ["a reason"]
    examples_store.add("pets", b"a picture", "blue")
    assert [example.quarantine for example in examples_store.labels.in_force("pets")] == [""]
