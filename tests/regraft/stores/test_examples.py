import hashlib
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from regraft.errors import (
    InvalidRequestError,
    RegraftError,
    StorageError,
)
from regraft.label_rules import MAX_LABEL_LENGTH, image_hash
from regraft.stores.examples import ExamplesStore
from regraft.stores.labels import AddOutcome, Example, NewExample
from tests import REPOSITORY
from tests.postgresql import PostgreSQL
from tests.regraft.stores.conftest import MODEL, data, labels_by_hash


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Where the store keeps its pictures."""
    return tmp_path / "examples/images"


def test_a_new_picture_is_accepted_and_kept(examples_store: ExamplesStore) -> None:
    outcome = examples_store.add(MODEL, data(1), "red", source="a test")

    assert outcome == AddOutcome.ACCEPTED
    assert examples_store.labels.in_force(MODEL) == [Example(image_hash(data(1)), "red", "a test")]
    assert examples_store.labels.count(MODEL) == 1


def test_the_same_picture_with_the_same_label_is_a_duplicate(examples_store: ExamplesStore) -> None:
    examples_store.add(MODEL, data(1), "red")

    assert examples_store.add(MODEL, data(1), "red", source="another") == AddOutcome.DUPLICATE
    assert examples_store.labels.count(MODEL) == 1


def test_the_bytes_on_the_disk_are_the_bytes_that_came(examples_store: ExamplesStore, images: Path) -> None:
    examples_store.add(MODEL, data(1), "red")
    sha256 = hashlib.sha256(data(1)).hexdigest()

    assert examples_store.image_file(sha256).read_bytes() == data(1)
    assert [file for file in images.rglob("*") if file.is_file()] == [images / sha256[:2] / sha256]


def test_examples_are_listed_by_hash_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    lists = []
    for name, order in (("one", range(20)), ("other", reversed(range(20)))):
        store = ExamplesStore(tmp_path / name)
        for number in order:
            store.add(MODEL, data(number), f"label {number % 3}")
        lists.append(store.labels.in_force(MODEL))
        store.close()

    assert lists[0] == lists[1]
    assert [example.sha256 for example in lists[0]] == sorted(image_hash(data(number)) for number in range(20))


def test_models_do_not_see_each_others_examples(examples_store: ExamplesStore) -> None:
    assert examples_store.add("cats", data(1), "tabby") == AddOutcome.ACCEPTED
    assert examples_store.add("dogs", data(1), "beagle") == AddOutcome.ACCEPTED
    examples_store.add("dogs", data(2), "poodle")

    assert examples_store.labels.in_force("cats") == [Example(image_hash(data(1)), "tabby")]
    assert (
        examples_store.labels.count("cats"),
        examples_store.labels.count("dogs"),
        examples_store.labels.count("birds"),
    ) == (1, 2, 0)
    assert examples_store.labels.in_force("birds") == []


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
    examples_store: ExamplesStore, images: Path, label: str, complaint: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"label.*{complaint}"):
        examples_store.add(MODEL, data(1), label)

    assert examples_store.labels.count(MODEL) == 0
    assert not images.exists()


@pytest.mark.parametrize("label", ["red", "Käfer", "蜂", "two words", "a.b", "...", "-", "x" * MAX_LABEL_LENGTH, "🐝"])
def test_ordinary_labels_are_kept_as_they_are(examples_store: ExamplesStore, label: str) -> None:
    examples_store.add(MODEL, data(1), label)

    assert examples_store.labels.in_force(MODEL) == [Example(image_hash(data(1)), label)]


def test_examples_survive_reopening(tmp_path: Path) -> None:
    store = ExamplesStore(tmp_path / "examples")
    store.add(MODEL, data(1), "red")
    store.add(MODEL, data(2), "green")
    listed = store.labels.in_force(MODEL)
    store.close()

    again = ExamplesStore(tmp_path / "examples")

    assert again.labels.in_force(MODEL) == listed
    assert again.add(MODEL, data(1), "red") == AddOutcome.DUPLICATE
    again.close()


def test_a_picture_that_lost_its_file_is_mended_by_sending_it_again(examples_store: ExamplesStore) -> None:
    examples_store.add(MODEL, data(1), "red")
    examples_store.image_file(image_hash(data(1))).unlink()

    assert examples_store.add(MODEL, data(1), "red") == AddOutcome.DUPLICATE
    assert examples_store.image_file(image_hash(data(1))).read_bytes() == data(1)


def test_a_picture_that_cannot_be_kept_is_a_storage_error_and_earlier_ones_are_still_there(
    examples_store: ExamplesStore, images: Path
) -> None:
    examples_store.add(MODEL, data(1), "red")
    sha256 = image_hash(data(2))
    assert sha256[:2] != image_hash(data(1))[:2]
    (images / sha256[:2]).write_text("a file where the folder should be")

    with pytest.raises(StorageError, match="cannot keep the image"):
        examples_store.add(MODEL, data(2), "green")

    assert examples_store.labels.in_force(MODEL) == [Example(image_hash(data(1)), "red")]
    (images / sha256[:2]).unlink()
    assert examples_store.add(MODEL, data(2), "green") == AddOutcome.ACCEPTED


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


def test_the_same_picture_from_eight_threads_is_accepted_once(examples_store: ExamplesStore) -> None:
    start = Barrier(8)

    def add(_: int) -> list[AddOutcome]:
        start.wait()
        return [examples_store.add(MODEL, data(number), "red") for number in range(5)]

    with ThreadPoolExecutor(8) as threads:
        outcomes = Counter(outcome for some in threads.map(add, range(8)) for outcome in some)

    assert outcomes == {AddOutcome.ACCEPTED: 5, AddOutcome.DUPLICATE: 35}
    assert examples_store.labels.count(MODEL) == 5


def test_different_pictures_from_eight_threads_are_all_kept(examples_store: ExamplesStore) -> None:
    start = Barrier(8)

    def add(thread: int) -> list[AddOutcome]:
        start.wait()
        return [examples_store.add(MODEL, data(100 * thread + number), f"label {thread}") for number in range(8)]

    with ThreadPoolExecutor(8) as threads:
        outcomes = [outcome for some in threads.map(add, range(8)) for outcome in some]

    assert outcomes == [AddOutcome.ACCEPTED] * 64
    assert labels_by_hash(examples_store) == {
        image_hash(data(100 * thread + number)): f"label {thread}" for thread in range(8) for number in range(8)
    }
    for example in examples_store.labels.in_force(MODEL):
        assert image_hash(examples_store.image_file(example.sha256).read_bytes()) == example.sha256


ADD_UNTIL_KILLED = """
import itertools, sys
from pathlib import Path
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import Bounds
from regraft.stores.unlabelled.pool import NewPicture

store = ExamplesStore(Path(sys.argv[1]))
for number in itertools.count():
    store.add("colours", f"picture {number}".encode() * 50, f"label {number}")
    store.pool.add("colours", [NewPicture(f"unlabelled {number}".encode() * 50)], Bounds())
    print(number, flush=True)
"""


def test_acknowledged_examples_and_pictures_without_labels_survive_kill_9(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ADD_UNTIL_KILLED, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(25)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout.read().splitlines()]
        assert child.wait() == -signal.SIGKILL

    store = ExamplesStore(tmp_path)
    kept = labels_by_hash(store)

    assert len(acknowledged) >= 25
    for number in acknowledged:
        sha256 = image_hash(data(number))
        assert kept[sha256] == f"label {number}"
        assert store.image_file(sha256).read_bytes() == data(number)
        unlabelled = f"unlabelled {number}".encode() * 50
        assert store.pool.file(store.pool.find(MODEL, image_hash(unlabelled)).sha256).read_bytes() == unlabelled
    assert len(kept) - len(acknowledged) in {0, 1}  # the last one may have been kept and not yet told
    assert store.add(MODEL, b"another", "red") == AddOutcome.ACCEPTED
    store.close()


def test_the_jobs_of_a_store_share_its_database(tmp_path: Path) -> None:
    store = ExamplesStore(tmp_path)
    job = store.jobs.create(MODEL, {}, "tester")
    store.close()

    again = ExamplesStore(tmp_path)

    assert again.jobs.get(job.id) == job
    again.close()


def test_a_batch_is_kept_whole_and_answered_one_by_one(examples_store: ExamplesStore) -> None:
    examples_store.add(MODEL, data(1), "red")

    outcomes = examples_store.add_all(
        MODEL, [NewExample(data(n), label) for n, label in ((1, "red"), (2, "green"), (1, "blue"))]
    )

    assert outcomes == [AddOutcome.DUPLICATE, AddOutcome.ACCEPTED, AddOutcome.RELABELLED]
    assert labels_by_hash(examples_store) == {
        image_hash(data(1)): "blue",
        image_hash(data(2)): "green",
    }


def test_of_a_batch_with_something_wrong_nothing_is_kept(examples_store: ExamplesStore) -> None:
    with pytest.raises(InvalidRequestError, match="label"):
        examples_store.add_all(MODEL, [NewExample(data(1), "red"), NewExample(data(2), "")])

    assert examples_store.labels.count(MODEL) == 0


@pytest.mark.parametrize("field", ["source", "annotator", "request_id", "group"])
@pytest.mark.parametrize(("text", "complaint"), [("x" * 201, "201 characters; the limit is 200"), ("a\0b", "control")])
def test_a_note_that_cannot_be_kept_is_refused_by_its_name(
    examples_store: ExamplesStore, field: str, text: str, complaint: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"{field}: {complaint}"):
        examples_store.add_all(MODEL, [NewExample(data(1), "red", **{field: text})])

    assert examples_store.labels.count(MODEL) == 0


def test_beyond_its_quota_a_caller_is_rejected_and_others_are_not(examples_store: ExamplesStore) -> None:
    def send(numbers: Iterable[int], caller: str) -> Counter[AddOutcome]:
        batch = [NewExample(data(number), "red") for number in numbers]
        return Counter(examples_store.add_all(MODEL, batch, caller=caller, hourly_quota=3))

    assert send(range(2), "one") == {AddOutcome.ACCEPTED: 2}
    assert send(range(4), "one") == {AddOutcome.DUPLICATE: 2, AddOutcome.ACCEPTED: 1, AddOutcome.REJECTED: 1}
    assert send(range(10, 12), "another") == {AddOutcome.ACCEPTED: 2}
    assert examples_store.labels.count(MODEL) == 5


def test_what_is_beyond_a_quota_is_not_written(examples_store: ExamplesStore, images: Path) -> None:
    def send(numbers: Iterable[int]) -> list[AddOutcome]:
        batch = [NewExample(data(number), "red") for number in numbers]
        return examples_store.add_all(MODEL, batch, caller="one", hourly_quota=3)

    send(range(2))
    assert send([5, 0, 6, 7]) == [AddOutcome.ACCEPTED, AddOutcome.DUPLICATE, AddOutcome.REJECTED, AddOutcome.REJECTED]
    assert send(range(10, 20)) == [AddOutcome.REJECTED] * 10

    written = {file.name for file in images.rglob("*") if file.is_file()}
    assert written == {example.sha256 for example in examples_store.labels.in_force(MODEL)}
    assert len(written) == 3


def test_ten_thousand_examples_of_one_class_are_kept_and_listed(tmp_path: Path, database: str) -> None:
    place = f"file://{tmp_path}/ten-thousand"  # which asks no disk to have written it
    store = ExamplesStore(tmp_path, database, place)

    for start in range(0, 10_000, 1000):
        store.add_all(MODEL, [NewExample(b"%d" % number, "red") for number in range(start, start + 1000)])

    assert store.labels.count(MODEL) == 10_000
    assert {example.label for example in store.labels.in_force(MODEL)} == {"red"}
    store.close()


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
            store.labels.in_force(MODEL)

        cluster.start()
        assert store.labels.in_force(MODEL) == [Example(image_hash(data(1)), "red")]
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
        store.labels.remove(MODEL, image_hash(data(1)))
    assert store.labels.in_force(MODEL) == [Example(image_hash(data(1)), "red")]
    store.close()
