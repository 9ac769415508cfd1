import hashlib
import signal
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import TypedDict

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from regraft.errors import (
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    RegraftError,
    StorageError,
)
from regraft.label_rules import HOLDOUT_SHARE, MAX_LABEL_LENGTH, image_hash, is_holdout
from regraft.stores.database.engine import examples, label_history, open_database, transaction
from regraft.stores.embeddings import EmbeddingKey
from regraft.stores.examples import (
    AddOutcome,
    Example,
    ExamplesStore,
    NewExample,
)
from tests import REPOSITORY
from tests.postgresql import PostgreSQL


class Quota(TypedDict):
    caller: str
    hourly_quota: int


MODEL = "colours"
MOEWE = "Möwe"
MAC = unicodedata.normalize("NFD", MOEWE)
"""The same, as a Mac calls a folder."""


def data(number: int) -> bytes:
    return f"picture {number}".encode() * 50


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Where the store keeps its pictures."""
    return tmp_path / "examples/images"


@pytest.fixture
def store(tmp_path: Path, database: str) -> Iterator[ExamplesStore]:
    store = ExamplesStore(tmp_path / "examples", database)
    yield store
    store.close()


def test_a_new_picture_is_accepted_and_kept(store: ExamplesStore) -> None:
    outcome = store.add(MODEL, data(1), "red", source="a test")

    assert outcome == AddOutcome.ACCEPTED
    assert store.list(MODEL) == [Example(image_hash(data(1)), "red", "a test")]
    assert store.count(MODEL) == 1


def test_the_same_picture_with_the_same_label_is_a_duplicate(store: ExamplesStore) -> None:
    store.add(MODEL, data(1), "red")

    assert store.add(MODEL, data(1), "red", source="another") == AddOutcome.DUPLICATE
    assert store.count(MODEL) == 1


def test_the_same_picture_with_another_label_is_relabelled(store: ExamplesStore) -> None:
    store.add(MODEL, data(1), "red")

    assert store.add(MODEL, data(1), "green") == AddOutcome.RELABELLED
    assert store.list(MODEL) == [Example(image_hash(data(1)), "green")]
    assert store.add(MODEL, data(1), "green") == AddOutcome.DUPLICATE
    assert store.add(MODEL, data(1), "red") == AddOutcome.RELABELLED


def test_a_label_from_a_mac_is_no_second_label(store: ExamplesStore) -> None:
    store.add(MODEL, data(1), MAC)

    assert store.add(MODEL, data(1), MOEWE) == AddOutcome.DUPLICATE
    assert store.relabel(MODEL, image_hash(data(1)), MAC) == Example(image_hash(data(1)), MOEWE)
    assert [entry.label for entry in store.history(MODEL, image_hash(data(1)))] == [MOEWE]
    assert [example.label for example in store.list(MODEL)] == [MOEWE]


def test_a_store_that_has_both_forms_of_a_label_has_one_label(store: ExamplesStore, database: str) -> None:
    store.add(MODEL, data(1), MOEWE)
    store.add(MODEL, data(2), "x")
    engine = open_database(database)
    with transaction(engine, "a test") as connection:  # as an earlier state wrote it
        connection.execute(update(examples).where(examples.c.label == "x").values(label=MAC))
    engine.dispose()

    assert {example.label for example in store.list(MODEL)} == {MOEWE}
    assert store.find(MODEL, image_hash(data(2))).label == MOEWE
    assert store.add(MODEL, data(2), MOEWE) == AddOutcome.DUPLICATE


def test_the_bytes_on_the_disk_are_the_bytes_that_came(store: ExamplesStore, images: Path) -> None:
    store.add(MODEL, data(1), "red")
    sha256 = hashlib.sha256(data(1)).hexdigest()

    assert store.image_file(sha256).read_bytes() == data(1)
    assert [file for file in images.rglob("*") if file.is_file()] == [images / sha256[:2] / sha256]


def test_examples_are_listed_by_hash_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    lists = []
    for name, order in (("one", range(20)), ("other", reversed(range(20)))):
        store = ExamplesStore(tmp_path / name)
        for number in order:
            store.add(MODEL, data(number), f"label {number % 3}")
        lists.append(store.list(MODEL))
        store.close()

    assert lists[0] == lists[1]
    assert [example.sha256 for example in lists[0]] == sorted(image_hash(data(number)) for number in range(20))


def test_models_do_not_see_each_others_examples(store: ExamplesStore) -> None:
    assert store.add("cats", data(1), "tabby") == AddOutcome.ACCEPTED
    assert store.add("dogs", data(1), "beagle") == AddOutcome.ACCEPTED
    store.add("dogs", data(2), "poodle")

    assert store.list("cats") == [Example(image_hash(data(1)), "tabby")]
    assert (store.count("cats"), store.count("dogs"), store.count("birds")) == (1, 2, 0)
    assert store.list("birds") == []


# Columns: the label, and what the complaint must say.
BAD_LABELS = {
    "empty": ("", "must not be empty"),
    "spaces": ("   ", "must not be empty"),
    "a space before": (" red", "nor begin or end with a space"),
    "a space after": ("red ", "nor begin or end with a space"),
    "a line end after": ("red\n", "nor begin or end"),
    "10 kB": ("x" * 10_000, f"10000 characters; the limit is {MAX_LABEL_LENGTH}"),
    "one too many": ("x" * (MAX_LABEL_LENGTH + 1), "101 characters"),
    "a line end inside": ("re\nd", "control characters"),
    "a null": ("re\0d", "control characters"),
    "an escape": ("re\x1b[31md", "control characters"),
    "a right-to-left override": ("re\u202ed", "control characters"),
    "half a surrogate pair": ("re\ud800d", "control characters"),
    "a slash": ("a/b", "path separators"),
    "a backslash": ("a\\b", "path separators"),
    "a path": ("../../etc/passwd", "path separators"),
    "the folder above": ("..", "path separators"),
    "this folder": (".", "path separators"),
}


@pytest.mark.parametrize(("label", "complaint"), BAD_LABELS.values(), ids=BAD_LABELS.keys())
def test_what_is_no_label_is_refused_and_nothing_is_kept(
    store: ExamplesStore, images: Path, label: str, complaint: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"label.*{complaint}"):
        store.add(MODEL, data(1), label)

    assert store.count(MODEL) == 0
    assert not images.exists()


@pytest.mark.parametrize("label", ["red", "Käfer", "蜂", "two words", "a.b", "...", "-", "x" * MAX_LABEL_LENGTH, "🐝"])
def test_ordinary_labels_are_kept_as_they_are(store: ExamplesStore, label: str) -> None:
    store.add(MODEL, data(1), label)

    assert store.list(MODEL) == [Example(image_hash(data(1)), label)]


def test_examples_survive_reopening(tmp_path: Path) -> None:
    store = ExamplesStore(tmp_path / "examples")
    store.add(MODEL, data(1), "red")
    store.add(MODEL, data(2), "green")
    listed = store.list(MODEL)
    store.close()

    again = ExamplesStore(tmp_path / "examples")

    assert again.list(MODEL) == listed
    assert again.add(MODEL, data(1), "red") == AddOutcome.DUPLICATE
    again.close()


def test_a_picture_that_lost_its_file_is_mended_by_sending_it_again(store: ExamplesStore) -> None:
    store.add(MODEL, data(1), "red")
    store.image_file(image_hash(data(1))).unlink()

    assert store.add(MODEL, data(1), "red") == AddOutcome.DUPLICATE
    assert store.image_file(image_hash(data(1))).read_bytes() == data(1)


def test_a_picture_that_cannot_be_kept_is_a_storage_error_and_earlier_ones_are_still_there(
    store: ExamplesStore, images: Path
) -> None:
    store.add(MODEL, data(1), "red")
    sha256 = image_hash(data(2))
    assert sha256[:2] != image_hash(data(1))[:2]
    (images / sha256[:2]).write_text("a file where the folder should be")

    with pytest.raises(StorageError, match="cannot keep the image"):
        store.add(MODEL, data(2), "green")

    assert store.list(MODEL) == [Example(image_hash(data(1)), "red")]
    (images / sha256[:2]).unlink()
    assert store.add(MODEL, data(2), "green") == AddOutcome.ACCEPTED


def test_a_root_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "examples").write_text("not a folder")

    with pytest.raises(StorageError, match="cannot open the examples store"):
        ExamplesStore(tmp_path / "examples")


def test_a_database_that_is_none_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "examples.sqlite").write_bytes(b"these are words and no database " * 100)

    with pytest.raises(StorageError, match="cannot open the database: file is not a database"):
        ExamplesStore(tmp_path)


# The driver for PostgreSQL is an optional package: whether it is there or not, the operator must get an answer.
@pytest.mark.parametrize(
    "url", ["nonsense://host/x", "no url at all", "sqlite:////nowhere/x.sqlite", "postgresql://u:p@127.0.0.1:1/x"]
)
def test_a_database_url_that_cannot_be_opened_is_an_error_of_the_operators(tmp_path: Path, url: str) -> None:
    with pytest.raises(RegraftError):
        ExamplesStore(tmp_path, database_url=url)


def test_the_database_may_be_elsewhere(tmp_path: Path) -> None:
    store = ExamplesStore(tmp_path / "examples", database_url=f"sqlite:///{tmp_path}/elsewhere.sqlite")
    store.add(MODEL, data(1), "red")
    store.close()

    assert (tmp_path / "elsewhere.sqlite").exists()
    assert not (tmp_path / "examples/examples.sqlite").exists()


@pytest.mark.parametrize("name", ["a b", "50% off", "x%20y", "what?", "a#b", "a&b=c", "ünï"])
def test_a_folder_of_any_name_holds_its_own_database(tmp_path: Path, name: str) -> None:
    root = tmp_path / name

    store = ExamplesStore(root)
    store.add(MODEL, data(1), "red")
    store.close()

    assert (root / "examples.sqlite").exists()
    assert list(tmp_path.iterdir()) == [root]


def test_threads_that_open_a_new_store_at_once_all_get_it(tmp_path: Path) -> None:
    start = Barrier(8)

    def open_and_add(thread: int) -> list[AddOutcome | str]:
        outcomes: list[AddOutcome | str] = []
        for turn in range(5):
            start.wait()
            try:
                store = ExamplesStore(tmp_path / f"examples {turn}")
            except StorageError as error:  # gathered, so that the other threads are not left waiting at the barrier
                outcomes.append(str(error))
                continue
            outcomes.append(store.add(MODEL, data(thread), "red"))
            store.close()
        return outcomes

    with ThreadPoolExecutor(8) as threads:
        outcomes = [outcome for some in threads.map(open_and_add, range(8)) for outcome in some]

    assert outcomes == [AddOutcome.ACCEPTED] * 40


def test_the_same_picture_from_eight_threads_is_accepted_once(store: ExamplesStore) -> None:
    start = Barrier(8)

    def add(_: int) -> list[AddOutcome]:
        start.wait()
        return [store.add(MODEL, data(number), "red") for number in range(5)]

    with ThreadPoolExecutor(8) as threads:
        outcomes = Counter(outcome for some in threads.map(add, range(8)) for outcome in some)

    assert outcomes == {AddOutcome.ACCEPTED: 5, AddOutcome.DUPLICATE: 35}
    assert store.count(MODEL) == 5


def test_different_pictures_from_eight_threads_are_all_kept(store: ExamplesStore) -> None:
    start = Barrier(8)

    def add(thread: int) -> list[AddOutcome]:
        start.wait()
        return [store.add(MODEL, data(100 * thread + number), f"label {thread}") for number in range(8)]

    with ThreadPoolExecutor(8) as threads:
        outcomes = [outcome for some in threads.map(add, range(8)) for outcome in some]

    assert outcomes == [AddOutcome.ACCEPTED] * 64
    assert {example.sha256: example.label for example in store.list(MODEL)} == {
        image_hash(data(100 * thread + number)): f"label {thread}" for thread in range(8) for number in range(8)
    }
    for example in store.list(MODEL):
        assert image_hash(store.image_file(example.sha256).read_bytes()) == example.sha256


ADD_UNTIL_KILLED = """
import itertools, sys
from pathlib import Path
from regraft.stores.examples import ExamplesStore

store = ExamplesStore(Path(sys.argv[1]))
for number in itertools.count():
    store.add("colours", f"picture {number}".encode() * 50, f"label {number}")
    print(number, flush=True)
"""


def test_acknowledged_examples_survive_kill_9(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ADD_UNTIL_KILLED, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(25)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout.read().splitlines()]
        assert child.wait() == -signal.SIGKILL

    store = ExamplesStore(tmp_path)
    kept = {example.sha256: example.label for example in store.list(MODEL)}

    assert len(acknowledged) >= 25
    for number in acknowledged:
        sha256 = image_hash(data(number))
        assert kept[sha256] == f"label {number}"
        assert store.image_file(sha256).read_bytes() == data(number)
    assert len(kept) - len(acknowledged) in {0, 1}  # the last one may have been kept and not yet told
    assert store.add(MODEL, b"another", "red") == AddOutcome.ACCEPTED
    store.close()


def test_without_embedding_names_what_is_still_to_be_embedded(store: ExamplesStore) -> None:
    key, other = EmbeddingKey("b" * 64, "1" * 64), EmbeddingKey("b" * 64, "2" * 64)
    hashes = [image_hash(data(number)) for number in range(5)]
    for number in range(5):
        store.add(MODEL, data(number), "red")
    store.add("another", data(99), "red")
    store.embeddings.put(key, {hashes[1]: np.zeros(3, np.float32), hashes[3]: np.zeros(3, np.float32)})
    store.embeddings.put(other, {hashes[0]: np.zeros(3, np.float32)})

    missing = store.without_embedding(MODEL, key, limit=10)
    assert list(missing) == [hashes[0], hashes[2], hashes[4]], "in the order of arrival"
    assert list(store.without_embedding(MODEL, key, limit=2)) == [hashes[0], hashes[2]]
    assert list(store.without_embedding(MODEL, key, limit=2, after=missing[hashes[2]])) == [hashes[4]]
    assert list(store.without_embedding(MODEL, other, limit=10)) == hashes[1:]
    assert store.without_embedding("nobody", key, limit=10) == {}


def test_what_was_removed_waits_for_no_embedding_until_it_is_labelled_again(store: ExamplesStore) -> None:
    key, sha256 = EmbeddingKey("b" * 64, "1" * 64), image_hash(data(1))
    store.add(MODEL, data(1), "red")
    (seen,) = store.without_embedding(MODEL, key, limit=10).values()
    store.remove(MODEL, sha256)
    assert store.without_embedding(MODEL, key, limit=10) == {}

    store.relabel(MODEL, sha256, "green")

    assert list(store.without_embedding(MODEL, key, limit=10, after=seen)) == [sha256]


def test_the_jobs_of_a_store_share_its_database(tmp_path: Path) -> None:
    store = ExamplesStore(tmp_path)
    job = store.jobs.create(MODEL, {}, "tester")
    store.close()

    again = ExamplesStore(tmp_path)

    assert again.jobs.get(job.id) == job
    again.close()


def test_the_holdout_is_about_a_fifth_of_all_pictures() -> None:
    hashes = [image_hash(str(number).encode()) for number in range(20_000)]

    share = sum(map(is_holdout, hashes)) / len(hashes)

    assert HOLDOUT_SHARE == 0.2
    assert share == pytest.approx(0.2, abs=0.012)  # more than four standard deviations


@pytest.mark.parametrize(
    ("sha256", "expected"),
    [("0" * 64, True), ("f" * 64, False), ("3333333" + "3" + "f" * 56, True), ("3333333" + "4" + "0" * 56, False)],
)
def test_a_hash_belongs_to_the_holdout_for_ever(sha256: str, expected: bool) -> None:
    assert is_holdout(sha256) is expected


@settings(max_examples=100)
@given(data=st.binary())
def test_the_holdout_is_a_pure_function_of_the_hash(data: bytes) -> None:
    sha256 = image_hash(data)

    assert is_holdout(sha256) == is_holdout(sha256)
    assert is_holdout(sha256) == is_holdout(sha256[:8] + "0" * 56)
    assert is_holdout(sha256) == (int(sha256[:8], 16) / 2**32 < 0.2)


def test_every_label_that_a_picture_had_stays_in_its_history(store: ExamplesStore) -> None:
    sha256 = image_hash(data(1))
    store.add_all(MODEL, [NewExample(data(1), "red", "a camera", "ada", "request 1")], caller="10.0.0.1")
    store.add(MODEL, data(1), "red")
    store.relabel(MODEL, sha256, "green", annotator="grace")
    store.remove(MODEL, sha256, source="blurred", annotator="ada")
    store.add(MODEL, data(1), "blue")

    history = store.history(MODEL, sha256)

    assert [(entry.label, entry.source, entry.annotator) for entry in history] == [
        ("red", "a camera", "ada"),
        ("green", "", "grace"),
        (None, "blurred", "ada"),
        ("blue", "", ""),
    ]
    assert (history[0].request_id, history[0].caller) == ("request 1", "10.0.0.1")
    assert store.list(MODEL) == [Example(sha256, "blue")]


def test_an_example_keeps_its_source_when_it_is_relabelled_without_one(store: ExamplesStore) -> None:
    store.add(MODEL, data(1), "red", "a camera")
    sha256 = image_hash(data(1))

    assert store.relabel(MODEL, sha256, "green") == Example(sha256, "green", "a camera")

    assert store.list(MODEL) == [Example(sha256, "green", "a camera")]


def test_what_was_removed_is_in_force_no_more_until_it_is_added_again(store: ExamplesStore) -> None:
    for number in (1, 2):
        store.add(MODEL, data(number), "red")
    sha256 = image_hash(data(1))

    assert store.remove(MODEL, sha256) == Example(sha256, "red")

    assert store.list(MODEL) == [Example(image_hash(data(2)), "red")]
    assert store.removed(MODEL) == {sha256}
    assert store.removed("another") == set()
    assert store.image_file(sha256).read_bytes() == data(1)
    assert store.add(MODEL, data(1), "green") == AddOutcome.ACCEPTED
    assert store.removed(MODEL) == set()


def test_what_is_no_example_can_neither_be_relabelled_nor_removed(store: ExamplesStore) -> None:
    with pytest.raises(NotFoundError, match="model 'colours' has no example 'ab12'"):
        store.relabel(MODEL, "ab12", "red")
    with pytest.raises(NotFoundError, match="no example"):
        store.remove(MODEL, "ab12")


def test_relabelling_to_the_same_label_adds_nothing_to_the_history(store: ExamplesStore) -> None:
    store.add(MODEL, data(1), "red")

    store.relabel(MODEL, image_hash(data(1)), "red")

    assert len(store.history(MODEL, image_hash(data(1)))) == 1


def test_an_example_is_found_by_the_beginning_of_its_hash(store: ExamplesStore) -> None:
    for number in range(40):
        store.add(MODEL, data(number), "red")
    sha256 = image_hash(data(1))

    assert store.find(MODEL, sha256[:12]) == Example(sha256, "red")
    for beginning in ("", "not a hash"):
        with pytest.raises(NotFoundError, match="has no examples whose hash begins"):
            store.find(MODEL, beginning)
    digit = Counter(example.sha256[0] for example in store.list(MODEL)).most_common(1)[0][0]
    with pytest.raises(NotFoundError, match=f"examples whose hash begins '{digit}'"):
        store.find(MODEL, digit)


def test_a_batch_is_kept_whole_and_answered_one_by_one(store: ExamplesStore) -> None:
    store.add(MODEL, data(1), "red")

    outcomes = store.add_all(
        MODEL, [NewExample(data(n), label) for n, label in ((1, "red"), (2, "green"), (1, "blue"))]
    )

    assert outcomes == [AddOutcome.DUPLICATE, AddOutcome.ACCEPTED, AddOutcome.RELABELLED]
    assert {example.sha256: example.label for example in store.list(MODEL)} == {
        image_hash(data(1)): "blue",
        image_hash(data(2)): "green",
    }


def test_of_a_batch_with_something_wrong_nothing_is_kept(store: ExamplesStore) -> None:
    with pytest.raises(InvalidRequestError, match="label"):
        store.add_all(MODEL, [NewExample(data(1), "red"), NewExample(data(2), "")])

    assert store.count(MODEL) == 0


@pytest.mark.parametrize("field", ["source", "annotator", "request_id", "group"])
@pytest.mark.parametrize(("text", "complaint"), [("x" * 201, "201 characters; the limit is 200"), ("a\0b", "control")])
def test_a_note_that_cannot_be_kept_is_refused_by_its_name(
    store: ExamplesStore, field: str, text: str, complaint: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"{field}: {complaint}"):
        store.add_all(MODEL, [NewExample(data(1), "red", **{field: text})])

    assert store.count(MODEL) == 0


def test_a_group_is_kept_with_the_picture_also_when_it_is_stated_later_and_outlives_a_removal(
    store: ExamplesStore,
) -> None:
    store.add_all(MODEL, [NewExample(data(1), "red", group="patient 7"), NewExample(data(2), "red")])
    later = store.add_all(MODEL, [NewExample(data(2), "red", group="patient 8"), NewExample(data(1), "red")])
    store.remove(MODEL, image_hash(data(1)))
    brought_back = store.relabel(MODEL, image_hash(data(1)), "blue")

    assert later == [AddOutcome.DUPLICATE, AddOutcome.DUPLICATE]
    assert brought_back.group == "patient 7"
    assert {example.sha256: example.group for example in store.list(MODEL)} == {
        image_hash(data(1)): "patient 7",
        image_hash(data(2)): "patient 8",
    }
    assert store.list("another") == []


def test_what_is_rejected_changes_no_group(store: ExamplesStore) -> None:
    store.add_all(MODEL, [NewExample(data(1), "red", group="mine")], caller="one", hourly_quota=1)

    store.add_all(MODEL, [NewExample(data(1), "blue", group="yours")], caller="one", hourly_quota=1)

    assert store.find(MODEL, image_hash(data(1))).group == "mine"


def test_a_side_that_was_decided_stays_whatever_is_said_or_removed_later(store: ExamplesStore) -> None:
    store.add_all(MODEL, [NewExample(data(1), "red", group="patient 7")])
    store.keep_sides(MODEL, {image_hash(data(1)): True, image_hash(data(2)): False})

    store.keep_sides(MODEL, {image_hash(data(1)): False, image_hash(data(2)): True, image_hash(data(3)): True})
    store.add_all(MODEL, [NewExample(data(2), "red", group="patient 8")])
    store.remove(MODEL, image_hash(data(1)))

    assert store.sides(MODEL) == {image_hash(data(1)): True, image_hash(data(2)): False, image_hash(data(3)): True}
    assert store.sides("another") == {}
    assert store.find(MODEL, image_hash(data(2))).group == "patient 8"


def test_a_group_alone_is_no_side(store: ExamplesStore) -> None:
    store.add_all(MODEL, [NewExample(data(1), "red", group="patient 7")])

    assert store.sides(MODEL) == {}


def test_beyond_its_quota_a_caller_is_rejected_and_others_are_not(store: ExamplesStore) -> None:
    def send(numbers: Iterable[int], caller: str) -> Counter[AddOutcome]:
        batch = [NewExample(data(number), "red") for number in numbers]
        return Counter(store.add_all(MODEL, batch, caller=caller, hourly_quota=3))

    assert send(range(2), "one") == {AddOutcome.ACCEPTED: 2}
    assert send(range(4), "one") == {AddOutcome.DUPLICATE: 2, AddOutcome.ACCEPTED: 1, AddOutcome.REJECTED: 1}
    assert send(range(10, 12), "another") == {AddOutcome.ACCEPTED: 2}
    assert store.count(MODEL) == 5


def test_what_is_beyond_a_quota_is_not_written(store: ExamplesStore, images: Path) -> None:
    def send(numbers: Iterable[int]) -> list[AddOutcome]:
        batch = [NewExample(data(number), "red") for number in numbers]
        return store.add_all(MODEL, batch, caller="one", hourly_quota=3)

    send(range(2))
    assert send([5, 0, 6, 7]) == [AddOutcome.ACCEPTED, AddOutcome.DUPLICATE, AddOutcome.REJECTED, AddOutcome.REJECTED]
    assert send(range(10, 20)) == [AddOutcome.REJECTED] * 10

    written = {file.name for file in images.rglob("*") if file.is_file()}
    assert written == {example.sha256 for example in store.list(MODEL)}
    assert len(written) == 3


def test_a_refused_label_is_not_counted_and_the_next_one_fits_when_the_oldest_is_an_hour_old(
    store: ExamplesStore, database: str
) -> None:
    def send(*numbers: int) -> list[AddOutcome]:
        batch = [NewExample(data(number), "red") for number in numbers]
        return store.add_all(MODEL, batch, caller="one", hourly_quota=3)

    def let_all_be(minutes: float) -> None:
        at = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="seconds")
        engine = open_database(database)
        with transaction(engine, "pretend that time passes") as connection:
            connection.execute(update(label_history).values(at=at))
        engine.dispose()

    assert store.next_label_fits_s("one", 3) == 0
    send(0, 1, 2)
    let_all_be(59.5)
    assert send(3, 4, 5) == [AddOutcome.REJECTED] * 3
    assert store.next_label_fits_s("one", 3) == pytest.approx(30, abs=20)
    assert store.next_label_fits_s("another", 3) == 0
    let_all_be(61)

    assert store.next_label_fits_s("one", 3) == 0
    assert send(3, 4, 5) == [AddOutcome.ACCEPTED] * 3


def test_relabelling_and_removing_have_a_caller_and_count_towards_its_quota(store: ExamplesStore) -> None:
    for number in range(3):
        store.add(MODEL, data(number), "red")
    one, two, three = (image_hash(data(number)) for number in range(3))
    quota: Quota = {"caller": "one", "hourly_quota": 2}

    store.relabel(MODEL, one, "green", **quota)
    store.relabel(MODEL, one, "green", **quota)  # changes nothing, and costs nothing
    store.remove(MODEL, two, **quota)
    with pytest.raises(OverloadedError, match="quota: one set 2 labels within an hour"):
        store.relabel(MODEL, three, "green", **quota)
    with pytest.raises(OverloadedError, match="quota"):
        store.remove(MODEL, three, **quota)

    assert [store.history(MODEL, sha256)[-1].caller for sha256 in (one, two)] == ["one", "one"]
    assert {example.sha256: example.label for example in store.list(MODEL)} == {one: "green", three: "red"}
    batch = [NewExample(data(9), "red")]
    assert store.add_all(MODEL, batch, **quota) == [AddOutcome.REJECTED]
    store.relabel(MODEL, three, "green", caller="another", hourly_quota=2)


def test_what_was_removed_is_found_if_asked_for_and_relabelling_brings_it_back(store: ExamplesStore) -> None:
    store.add(MODEL, data(1), "red", "a camera")
    sha256 = image_hash(data(1))
    store.remove(MODEL, sha256, source="blurred")

    with pytest.raises(NotFoundError):
        store.find(MODEL, sha256)
    assert store.find(MODEL, sha256[:12], or_removed=True) == Example(sha256, "", "a camera")
    with pytest.raises(NotFoundError):
        store.find(MODEL, "not a hash", or_removed=True)
    with pytest.raises(NotFoundError):
        store.remove(MODEL, sha256)

    back = store.relabel(MODEL, sha256, "green")

    assert back == Example(sha256, "green", "a camera")
    assert store.list(MODEL) == [back]
    assert store.list(MODEL)[0].added_at == back.added_at
    assert [entry.label for entry in store.history(MODEL, sha256)] == ["red", None, "green"]


def test_ten_thousand_examples_of_one_class_are_kept_and_listed(tmp_path: Path, database: str) -> None:
    store = ExamplesStore(tmp_path, database, "memory://ten-thousand")  # a disk would take a minute

    for start in range(0, 10_000, 1000):
        store.add_all(MODEL, [NewExample(b"%d" % number, "red") for number in range(start, start + 1000)])

    assert store.count(MODEL) == 10_000
    assert {example.label for example in store.list(MODEL)} == {"red"}
    store.close()
    MemoryFileSystem.store.clear()


def test_a_database_that_went_away_is_a_storage_error_and_is_found_again(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with PostgreSQL.shared(tmp_path_factory.mktemp("cluster")) as cluster:
        store = ExamplesStore(tmp_path, cluster.new_database())
        store.add(MODEL, data(1), "red")
        cluster.stop()

        with pytest.raises(StorageError, match="cannot keep the examples"):
            store.add(MODEL, data(2), "red")
        with pytest.raises(StorageError, match="cannot read the examples"):
            store.list(MODEL)

        cluster.start()
        assert store.list(MODEL) == [Example(image_hash(data(1)), "red")]
        assert store.add(MODEL, data(2), "red") == AddOutcome.ACCEPTED
        store.close()


def test_a_database_that_is_read_only_refuses_labels_and_can_still_be_read(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    url = postgresql.new_database()
    store = ExamplesStore(tmp_path, url)
    store.add(MODEL, data(1), "red")
    store.close()

    store = ExamplesStore(tmp_path, url.replace("options=", "options=-cdefault_transaction_read_only%3Don%20"))

    with pytest.raises(StorageError, match="cannot keep the examples: cannot execute INSERT in a read-only"):
        store.add(MODEL, data(2), "red")
    with pytest.raises(StorageError, match="read-only"):
        store.remove(MODEL, image_hash(data(1)))
    assert store.list(MODEL) == [Example(image_hash(data(1)), "red")]
    store.close()


def test_a_label_in_quarantine_stays_there_until_it_is_released_or_another_is_given(store: ExamplesStore) -> None:
    for number in range(3):
        store.add("pets", f"picture {number}".encode(), "red")
    first, second, third = (example.sha256 for example in store.list("pets"))
    store.quarantine("pets", {first: ("red", "a reason"), second: ("red", "a reason"), third: ("blue", "a reason")})
    assert {example.sha256 for example in store.list("pets", quarantined=True)} == {first, second}, "third is not blue"

    freed = store.release("pets", first, annotator="ada")
    changed = store.relabel("pets", second, "blue")

    assert (freed.label, freed.quarantine, freed.vouched_by) == ("red", "", "ada")
    assert (changed.label, changed.quarantine, changed.vouched_by) == ("blue", "", "")
    assert store.list("pets", quarantined=True) == []
    store.quarantine("pets", {first: ("red", "again"), second: ("blue", "again")})
    assert [example.sha256 for example in store.list("pets", quarantined=True)] == [second], "ada vouched for the first"


def test_who_released_an_example_is_in_its_history(store: ExamplesStore) -> None:
    store.add("pets", b"a picture", "red")
    sha256 = store.list("pets")[0].sha256
    store.quarantine("pets", {sha256: ("red", "a reason")})

    store.release("pets", sha256, annotator="ada", caller="ops")

    last = store.history("pets", sha256)[-1]
    assert (last.label, last.source, last.annotator, last.caller) == ("red", "released from quarantine", "ada", "ops")


def test_only_what_is_in_quarantine_can_be_released(store: ExamplesStore) -> None:
    store.add("pets", b"a picture", "red")

    with pytest.raises(PreconditionError, match="is not in quarantine"):
        store.release("pets", store.list("pets")[0].sha256)
    with pytest.raises(NotFoundError, match="no example"):
        store.release("pets", "0" * 64)


def test_the_same_label_sent_again_does_not_end_the_quarantine_and_another_does(store: ExamplesStore) -> None:
    store.add("pets", b"a picture", "red")
    sha256 = store.list("pets")[0].sha256
    store.quarantine("pets", {sha256: ("red", "a reason")})

    assert store.add("pets", b"a picture", "red") is AddOutcome.DUPLICATE
    assert [example.quarantine for example in store.list("pets")] == ["a reason"]
    store.add("pets", b"a picture", "blue")
    assert [example.quarantine for example in store.list("pets")] == [""]
