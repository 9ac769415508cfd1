import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from regraft.errors import ExistsError, InvalidRequestError, NotFoundError, PreconditionError
from regraft.stores.lifecycle.folders import DeletedModel
from regraft.stores.lifecycle.history import Beginning, HistoryEntry
from regraft.stores.models import MODEL_FILE, ModelStore
from tests import REPOSITORY

NAME = "flowers"
BEGINNING = Beginning("d" * 64, "tiny", ("rose", "tulip"))

STEPS = """
import os, sys
from pathlib import Path
from regraft.errors import RegraftError
from regraft.stores.lifecycle.history import Beginning, HistoryEntry
from regraft.stores.models import ModelStore

def create(store):
    store.folders.create("flowers", Beginning("d" * 64, "tiny", ("rose", "tulip")), who="Ann", why="", request_id="1")

def delete(store):
    store.folders.delete("flowers", who="Ann", why="", request_id="2")

def restore(store):
    store.folders.restore("flowers", who="Ann", why="", request_id="3")

def purge(store):
    folders = store.folders
    for model in folders.deleted():
        folders.settle()
        folders.begin_purge(model)
    for name in folders.purging():
        folders.end_purge(name)

BEFORE = {"create": [], "delete": [create], "restore": [create, delete], "purge": [create, delete]}
CHANGES = ("open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.truncate")

def crashes(root, steps, name):
    # Run an operation in a child that ends at its n-th change of the disk, for every n: as `kill -9` would.
    for n in range(1, 100):
        store = ModelStore(Path(root) / f"{name}-{n}")
        for step in steps:
            step(store)
        child = os.fork()
        if not child:
            left = [n]
            def count(event, arguments):
                if event in CHANGES and not (event == "open" and arguments[1] in ("r", "rb")):
                    left[0] -= 1
                    if left[0] == 0:
                        os._exit(9)
            sys.addaudithook(count)
            globals()[name](ModelStore(store.root))
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            return

for name, steps in BEFORE.items():
    crashes(sys.argv[1], steps, name)
"""


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def write(folder: Path) -> None:
    (folder / MODEL_FILE).write_bytes(b"model")


def create(store: ModelStore, name: str = NAME, request_id: str = "") -> None:
    store.folders.create(name, BEGINNING, who="Ann", why="a start", request_id=request_id)


def delete(store: ModelStore, name: str = NAME, request_id: str = "", etag: str = "") -> None:
    store.folders.delete(name, who="Ben", why="a mistake", request_id=request_id, etag=etag)


def restore(store: ModelStore, name: str = NAME, request_id: str = "") -> None:
    store.folders.restore(name, who="Cat", why="none after all", request_id=request_id)


def publish(store: ModelStore, name: str = NAME) -> int:
    return store.publish(name, write, who="Ann", why="")


def events(store: ModelStore, name: str = NAME) -> list[str]:
    return [entry.event for entry in store.history(name)]


def test_a_model_begins_without_a_version_and_its_history_says_with_what(store: ModelStore) -> None:
    create(store)

    assert store.names() == [NAME]
    assert (store.versions(NAME), store.champion(NAME), store.shadow(NAME)) == ([], None, None)
    (entry,) = store.history(NAME)
    assert (entry.event, entry.version, entry.who, entry.why) == ("create", 0, "Ann", "a start")
    assert entry.beginning == store.beginning(NAME) == BEGINNING


def test_its_first_version_is_1(store: ModelStore) -> None:
    create(store)

    assert publish(store) == 1
    assert store.move(NAME, 1, who="Ann", why="", expected=0).previous is None
    assert store.champion(NAME) == 1


def test_a_model_that_began_with_a_version_has_no_beginning(store: ModelStore) -> None:
    publish(store)

    assert store.beginning(NAME) is None


@pytest.mark.parametrize("name", ["", "../x", ".examples", "a/b", "/etc", "a" * 65])
def test_a_name_that_leads_elsewhere_is_refused_and_changes_nothing(store: ModelStore, name: str) -> None:
    for change in (create, delete, restore):
        with pytest.raises(InvalidRequestError, match="model name"):
            change(store, name)
    assert not store.root.exists()


def test_a_name_that_a_model_has_is_taken_and_so_is_its_other_spelling(store: ModelStore) -> None:
    create(store)

    with pytest.raises(ExistsError, match="there is a model 'flowers'"):
        create(store)
    with pytest.raises(InvalidRequestError, match="'flowers', which is there"):
        create(store, "Flowers")
    assert events(store) == ["create"]


@pytest.mark.parametrize(
    ("beginning", "complaint"),
    [
        (Beginning("d" * 64, "tiny", ("rose", "rose")), "'rose' is there twice"),
        (Beginning("d" * 64, "tiny", ("a/b",)), "path separators"),
        (Beginning("d" * 64, "tiny", ("rose",), "closed"), "tells two classes apart"),
        (Beginning("d" * 64, "tiny", tuple(map(str, range(1_001)))), "the limit is 1000"),
    ],
)
def test_labels_that_cannot_be_a_models_are_refused(store: ModelStore, beginning: Beginning, complaint: str) -> None:
    with pytest.raises(InvalidRequestError, match=complaint):
        store.folders.create(NAME, beginning, who="Ann", why="")
    assert store.names() == []


def test_what_waits_for_a_backbone_began_with_it_and_has_no_champion_in_the_trash_or_not(store: ModelStore) -> None:
    for name in ("birds", "cats", "dogs"):
        create(store, name)
    delete(store, "cats")
    store.folders.create("eggs", Beginning("e" * 64, "other"), who="Ann", why="")
    publish(store, "trained")

    assert store.folders.waiting_for("d" * 64) == ["birds", "cats", "dogs"]
    store.move("dogs", publish(store, "dogs"), who="Ann", why="")
    assert store.folders.waiting_for("d" * 64) == ["birds", "cats"]


def test_one_label_may_begin_an_open_set(store: ModelStore) -> None:
    store.folders.create(NAME, Beginning("d" * 64, "tiny", ("rose",)), who="Ann", why="")

    assert store.names() == [NAME]


def test_a_deleted_model_is_gone_and_its_history_says_who_did_it(store: ModelStore) -> None:
    create(store)
    publish(store)
    delete(store)

    assert store.names() == []
    (deleted,) = store.folders.deleted()
    assert (deleted.name, deleted.deleted.event, deleted.deleted.who, deleted.deleted.why) == (
        NAME,
        "delete",
        "Ben",
        "a mistake",
    )
    with pytest.raises(NotFoundError, match="no model 'flowers'"):
        delete(store)


def test_a_restored_model_is_as_it_was(store: ModelStore) -> None:
    create(store)
    publish(store)
    store.move(NAME, 1, who="Ann", why="")
    delete(store)
    restore(store)

    assert (store.names(), store.champion(NAME), store.versions(NAME)) == ([NAME], 1, [1])
    assert events(store) == ["create", "publish", "promote", "delete", "restore"]
    assert store.folders.deleted() == []
    with pytest.raises(ExistsError, match="is not deleted"):
        restore(store)


def test_a_name_in_the_trash_is_taken_by_a_model_that_is_created_or_trained(store: ModelStore) -> None:
    create(store)
    delete(store)

    for begin in (create, publish):
        with pytest.raises(ExistsError, match=r"in the trash: `regraft models restore flowers`"):
            begin(store)
    with pytest.raises(NotFoundError):
        restore(store, "other")


def test_a_deletion_that_was_decided_on_another_state_is_refused(store: ModelStore) -> None:
    create(store)
    etag = store.etag(NAME)
    publish(store)

    with pytest.raises(PreconditionError, match="has changed since"):
        delete(store, etag=etag)
    delete(store, etag=store.etag(NAME))


def test_a_request_that_comes_twice_is_done_once(store: ModelStore) -> None:
    for change, request_id in ((create, "1"), (delete, "2"), (restore, "3")):
        change(store, request_id=request_id)
        change(store, request_id=request_id)
    delete(store, request_id="2")  # of a client that slept

    assert events(store) == ["create", "delete", "restore"]
    with pytest.raises(InvalidRequestError, match="was given to another request"):
        store.folders.create(NAME, Beginning("d" * 64, "tiny", ("fern", "moss")), who="Ann", why="", request_id="1")
    with pytest.raises(InvalidRequestError, match="was given to another request"):
        delete(store, request_id="3")


def test_no_version_is_published_into_a_model_that_was_deleted_meanwhile(store: ModelStore) -> None:
    create(store)

    delete(store)

    with pytest.raises(NotFoundError, match="has no version 1"):
        store.move(NAME, 1, who="Ann", why="")
    with pytest.raises(ExistsError, match="in the trash"):
        publish(store)


def test_the_trash_keeps_a_model_for_so_many_days(store: ModelStore) -> None:
    create(store)
    delete(store)
    (deleted,) = store.folders.deleted()

    until = deleted.kept_until(30)

    assert timedelta(days=29.9) < until - datetime.now(UTC) < timedelta(days=30.1)


def test_a_removal_that_has_begun_ends_the_way_back_and_frees_the_name_at_its_end(store: ModelStore) -> None:
    create(store)
    delete(store)
    (deleted,) = store.folders.deleted()

    store.folders.begin_purge(deleted)

    assert (store.folders.deleted(), store.folders.purging()) == ([], [NAME])
    with pytest.raises(NotFoundError, match="in the trash"):
        restore(store)
    with pytest.raises(ExistsError, match="is being removed just now"):
        create(store)
    store.folders.end_purge(NAME)
    create(store)
    assert events(store) == ["create"]


def test_a_model_that_was_restored_and_deleted_again_is_not_removed_for_the_first_time(store: ModelStore) -> None:
    create(store)
    delete(store)
    (deleted,) = store.folders.deleted()
    later = DeletedModel(NAME, deleted.deleted.__class__(**{**vars(deleted.deleted), "who": "Dan"}))

    with pytest.raises(NotFoundError, match="any more"):
        store.folders.begin_purge(later)
    assert [each.name for each in store.folders.deleted()] == [NAME]


def test_a_history_that_a_newer_regraft_wrote_hides_no_other_model(store: ModelStore) -> None:
    create(store)
    create(store, "trees")
    with (store.root / "trees" / "history.jsonl").open("a") as file:
        file.write('{"event": "dream"}\n')

    assert store.names() == [NAME, "trees"]


def test_a_crash_between_any_two_steps_leaves_the_model_whole_and_the_step_repeatable(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", STEPS, str(tmp_path)], cwd=REPOSITORY, env=environment, check=True)
    repeated: dict[str, Callable[[ModelStore], object]] = {
        "create": lambda store: create(store, request_id="1"),
        "delete": lambda store: delete(store, request_id="2"),
        "restore": lambda store: restore(store, request_id="3"),
        "purge": _purge,
    }
    stores = sorted(tmp_path.iterdir())
    assert {root.name.partition("-")[0] for root in stores} == repeated.keys()
    assert len(stores) > 4 * len(repeated)  # several crashes each
    for root in stores:
        operation = root.name.partition("-")[0]
        store = ModelStore(root)
        assert store.names() in ([], [NAME])  # whatever happened, it can be read, and is there or not
        repeated[operation](store)
        assert store.names() == ([NAME] if operation in ("create", "restore") else []), root.name
        seen = [] if operation == "purge" else events(ModelStore(root)) or [e.event for e in _trashed(store)]
        assert (
            seen
            == {
                "create": ["create"],
                "delete": ["create", "delete"],
                "restore": ["create", "delete", "restore"],
                "purge": [],
            }[operation]
        ), root.name
        assert not [*root.glob(".trash/.gone-*")]


def test_what_a_crash_left_half_deleted_is_settled(store: ModelStore) -> None:
    create(store)
    delete(store)
    shutil.move(store.root / ".trash" / NAME, store.root / NAME)  # as if the rename had not come to pass

    assert (store.names(), [each.name for each in store.folders.deleted()]) == ([], [NAME])
    store.folders.settle()

    assert (store.root / ".trash" / NAME).is_dir()
    restore(store)
    assert store.names() == [NAME]


def _purge(store: ModelStore) -> None:
    store.folders.settle()
    for model in store.folders.deleted():
        store.folders.begin_purge(model)
    for name in store.folders.purging():
        store.folders.end_purge(name)


def _trashed(store: ModelStore) -> list[HistoryEntry]:
    return ModelStore(store.folders.trash).history(NAME)
