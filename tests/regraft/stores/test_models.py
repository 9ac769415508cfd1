import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.cancellation import set_wanted
from regraft.errors import (
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    OperatorError,
    PreconditionError,
    RegraftError,
    StorageError,
)
from regraft.stores.lifecycle.history import HistoryEntry
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, REPORT_FILE, REPORT_JSON_FILE, ModelStore
from tests import REPOSITORY
from tests.full_disk import disk_full_after

NAME = "colours"
BAD_NAMES = ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "-x", "_x", "a b", "a\n", "a\0b", "a:b", "a" * 65, "a\\b"]


def write(folder: Path) -> None:
    (folder / MODEL_FILE).write_bytes(b"model")
    (folder / FEATURES_FILE).write_bytes(b"features")
    (folder / REPORT_FILE).write_bytes(b"report")


def publish(store: ModelStore, count: int = 1, name: str = NAME) -> list[int]:
    return [store.publish(name, write, who="tester", why="a test") for _ in range(count)]


def promote(store: ModelStore, version: int) -> None:
    store.move(NAME, version, who="tester", why="a test")


def rollback(store: ModelStore) -> int:
    return store.move(NAME, store.next_rollback(NAME), event="rollback", who="tester", why="a test").version


def events(store: ModelStore) -> list[tuple[str, int, int | None]]:
    return [(entry.event, entry.version, entry.previous) for entry in store.history(NAME)]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def test_an_empty_store_has_nothing_and_reading_it_creates_nothing(store: ModelStore) -> None:
    assert store.names() == []
    assert store.versions(NAME) == []
    assert store.champion(NAME) is None
    assert store.previous_champion(NAME) is None
    assert store.history(NAME) == []
    assert not store.root.exists()


def test_versions_are_numbered_from_1_upwards(store: ModelStore) -> None:
    assert publish(store, 3) == [1, 2, 3]
    assert store.versions(NAME) == [1, 2, 3]


def test_versions_are_sorted_as_numbers_and_not_as_texts(store: ModelStore) -> None:
    publish(store, 11)

    assert store.versions(NAME) == list(range(1, 12))


def test_a_version_holds_what_was_written_and_nothing_else(store: ModelStore) -> None:
    publish(store)

    folder = store.folder(NAME, 1)

    assert folder == store.root / NAME / "1"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        MODEL_FILE: b"model",
        FEATURES_FILE: b"features",
        REPORT_FILE: b"report",
    }


def test_models_do_not_see_each_others_versions(store: ModelStore) -> None:
    publish(store, 2, "cats")
    publish(store, 1, "dogs")
    store.move("cats", 2, who="tester", why="")

    assert store.names() == ["cats", "dogs"]
    assert (store.versions("cats"), store.versions("dogs")) == ([1, 2], [1])
    assert (store.champion("cats"), store.champion("dogs")) == (2, None)


def test_what_is_no_model_is_not_listed(store: ModelStore) -> None:
    publish(store)
    (store.root / ".examples").mkdir()
    (store.root / "notes.txt").write_text("")
    (store.root / NAME / "notes").mkdir()
    (store.root / NAME / "7").write_text("a file and no folder")

    assert store.names() == [NAME]
    assert store.versions(NAME) == [1]


def test_a_number_is_not_used_again_even_if_the_newest_version_was_deleted(store: ModelStore) -> None:
    publish(store, 3)
    shutil.rmtree(store.folder(NAME, 3))

    assert publish(store) == [4]
    shutil.rmtree(store.folder(NAME, 4))
    assert publish(ModelStore(store.root)) == [5]
    assert store.versions(NAME) == [1, 2, 5]


def test_a_number_is_not_used_again_even_if_the_history_was_deleted(store: ModelStore) -> None:
    publish(store, 2)
    (store.root / NAME / "history.jsonl").unlink()

    assert publish(store) == [3]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), InvalidRequestError("no")])
def test_a_writer_that_fails_publishes_nothing(store: ModelStore, error: BaseException) -> None:
    publish(store)

    def fail(folder: Path) -> None:
        write(folder)
        raise error

    with pytest.raises(type(error)) as caught:
        store.publish(NAME, fail, who="tester", why="")

    assert caught.value is error
    assert store.versions(NAME) == [1]
    assert events(store) == [("publish", 1, None)]
    assert [path.name for path in (store.root / NAME).iterdir() if path.is_dir()] == ["1"]
    publish(store)
    assert store.versions(NAME)[-1] > 1


def test_a_disk_that_is_full_publishes_nothing(store: ModelStore) -> None:
    publish(store)

    def write_much(folder: Path) -> None:
        (folder / MODEL_FILE).write_bytes(bytes(2000))

    with disk_full_after(1000), pytest.raises(StorageError, match=f"cannot publish a version of '{NAME}'"):
        store.publish(NAME, write_much, who="tester", why="")

    assert store.versions(NAME) == [1]
    assert [path.name for path in (store.root / NAME).iterdir() if path.is_dir()] == ["1"]


def test_a_publication_that_cannot_be_written_into_the_history_publishes_nothing(store: ModelStore) -> None:
    store.publish(NAME, write, who="tester", why="words " * 1000)
    length = (store.root / NAME / "history.jsonl").stat().st_size

    with disk_full_after(length + 10), pytest.raises(StorageError):
        publish(store)

    assert store.versions(NAME) == [1]
    assert events(store) == [("publish", 1, None)]


def test_a_promotion_that_cannot_be_written_into_the_history_leaves_the_champion(store: ModelStore) -> None:
    publish(store, 2)
    promote(store, 1)
    length = (store.root / NAME / "history.jsonl").stat().st_size

    with disk_full_after(length + 10), pytest.raises(StorageError, match=f"cannot move the champion of '{NAME}'"):
        promote(store, 2)

    assert store.champion(NAME) == 1
    promote(store, 2)  # the torn line that is left does no harm
    assert events(store)[2:] == [("promote", 1, None), ("promote", 2, 1)]


def test_nobody_sees_a_version_before_it_is_whole(store: ModelStore) -> None:
    seen: list[list[int]] = []

    def look_while_writing(folder: Path) -> None:
        write(folder)
        seen.append(ModelStore(store.root).versions(NAME))

    store.publish(NAME, look_while_writing, who="tester", why="")

    assert seen == [[]]
    assert store.versions(NAME) == [1]


KILLED_WHILE_PUBLISHING = """
import sys
from pathlib import Path
from regraft.stores.models import ModelStore

def write(folder):
    (folder / "model.onnx").write_bytes(b"half a mod")
    (folder / "left.over").write_bytes(b"")
    print("writing", flush=True)
    sys.stdin.readline()

ModelStore(Path(sys.argv[1])).publish("colours", write, who="killed", why="")
"""


def test_what_a_killed_publisher_left_is_ignored_and_cleared_by_the_next(store: ModelStore) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_WHILE_PUBLISHING, str(store.root)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        child.kill()
    leftovers = list((store.root / NAME).rglob("left.over"))
    assert leftovers, "the case does not test what its name says"

    assert store.versions(NAME) == []
    assert store.history(NAME) == []
    assert store.names() == [NAME]
    assert publish(store) == [1]
    assert sorted(path.name for path in store.folder(NAME, 1).iterdir()) == [FEATURES_FILE, MODEL_FILE, REPORT_FILE]
    assert list((store.root / NAME).rglob("left.over")) == []


def test_a_promoted_version_is_the_champion_for_everybody(store: ModelStore) -> None:
    publish(store, 2)

    promote(store, 2)

    assert store.champion(NAME) == 2
    assert ModelStore(store.root).champion(NAME) == 2


def test_publishing_does_not_move_the_champion(store: ModelStore) -> None:
    publish(store, 1)
    promote(store, 1)

    publish(store, 2)

    assert store.champion(NAME) == 1


def test_rolling_back_twice_goes_back_two(store: ModelStore) -> None:
    publish(store, 3)
    for version in (1, 2, 3):
        promote(store, version)

    assert (store.previous_champion(NAME), rollback(store), store.champion(NAME)) == (2, 2, 2)
    assert (store.previous_champion(NAME), rollback(store), store.champion(NAME)) == (1, 1, 1)
    assert store.previous_champion(NAME) is None
    with pytest.raises(PreconditionError, match="no earlier champion"):
        rollback(store)
    assert store.champion(NAME) == 1


def test_after_a_rollback_and_a_promotion_a_rollback_goes_to_the_champion_before(store: ModelStore) -> None:
    publish(store, 3)
    promote(store, 1)
    promote(store, 2)
    rollback(store)
    promote(store, 3)

    assert rollback(store) == 1


def test_promoting_the_champion_once_more_does_not_blunt_the_rollback(store: ModelStore) -> None:
    publish(store, 2)
    promote(store, 1)
    promote(store, 2)
    promote(store, 2)  # somebody's call timed out, and was sent again

    assert rollback(store) == 1
    assert store.champion(NAME) == 1


def test_a_rollback_to_a_version_that_was_deleted_is_refused(store: ModelStore) -> None:
    publish(store, 2)
    promote(store, 1)
    promote(store, 2)
    shutil.rmtree(store.folder(NAME, 1))

    with pytest.raises(NotFoundError, match=r"has no version 1 in .* \(it has: 2\)"):
        rollback(store)
    assert store.champion(NAME) == 2


def test_a_rollback_without_any_champion_is_refused(store: ModelStore) -> None:
    with pytest.raises(PreconditionError, match=f"model '{NAME}' has no earlier champion"):
        rollback(store)
    publish(store)
    with pytest.raises(PreconditionError):
        rollback(store)


def test_the_history_tells_who_did_what_when_and_why_in_order(store: ModelStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    store.publish(NAME, write, who="Zoë", why="first\nnight", job="j1")
    store.move(NAME, 1, who="gate", why="blessed", job="j1")
    store.publish(NAME, write, who="cron", why="second")
    store.move(NAME, 2, who="Ann", why="better", expected=1)
    store.move(NAME, 1, event="rollback", who="Ann", why="worse after all")

    history = store.history(NAME)

    assert [(e.event, e.version, e.previous, e.who, e.why, e.job) for e in history] == [
        ("publish", 1, None, "Zoë", "first\nnight", "j1"),
        ("promote", 1, None, "gate", "blessed", "j1"),
        ("publish", 2, 1, "cron", "second", ""),
        ("promote", 2, 1, "Ann", "better", ""),
        ("rollback", 1, 2, "Ann", "worse after all", ""),
    ]
    for entry in history:
        at = datetime.fromisoformat(entry.at)
        assert at.utcoffset() == timedelta(0)
        assert before <= at <= datetime.now(UTC)


def test_the_history_is_one_json_object_a_line(store: ModelStore) -> None:
    publish(store, 2)

    lines = (store.root / NAME / "history.jsonl").read_text().splitlines()

    assert [HistoryEntry(**json.loads(line)) for line in lines] == store.history(NAME)


def test_a_refusal_is_in_the_reason_as_every_release_wrote_it(store: ModelStore) -> None:
    for why in ("refused: no better", "retrain: accuracy 0.9 -> 0.95", "it was refused: by ada"):
        store.publish(NAME, write, who="tester", why=why)

    assert [entry.refusal for entry in store.history(NAME)] == ["no better", "", ""]


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        ('{"findings": {"verdict": {"blessed": true}}}', {"blessed": True}),
        ('{"findings": {"verdict": null}}', None),
        ('{"findings": {}}', None),
        ("no JSON", None),
    ],
)
def test_the_verdict_on_a_version_is_in_its_report_if_anywhere(
    store: ModelStore, report: str, verdict: dict[str, bool] | None
) -> None:
    (version,) = publish(store)
    (store.folder(NAME, version) / REPORT_JSON_FILE).write_text(report)

    assert store.verdict(NAME, version) == verdict
    assert store.verdict(NAME, version + 1) is None, "there is no such version"


def test_a_promotion_that_expected_another_champion_is_refused(store: ModelStore) -> None:
    publish(store, 3)
    promote(store, 1)
    promote(store, 3)  # somebody was faster

    with pytest.raises(PreconditionError, match="is now version 3, not 1: look again"):
        store.move(NAME, 2, who="gate", why="blessed", expected=1)

    assert store.champion(NAME) == 3
    assert len(store.history(NAME)) == 5


def test_a_promotion_that_expected_a_champion_where_there_is_none_is_refused(store: ModelStore) -> None:
    publish(store)

    with pytest.raises(PreconditionError, match="is no version now, not 1"):
        store.move(NAME, 1, who="gate", why="blessed", expected=1)


def test_a_rollback_that_expected_another_champion_is_refused(store: ModelStore) -> None:
    for version in publish(store, 3):
        promote(store, version)

    with pytest.raises(PreconditionError, match="is now version 3, not 2: look again"):
        store.move(NAME, 2, event="rollback", who="tester", why="a test", expected=2)

    assert store.champion(NAME) == 3
    store.move(NAME, 2, event="rollback", who="tester", why="a test", expected=3)
    assert store.champion(NAME) == 2


def test_a_move_that_expected_no_champion_is_refused_where_there_is_one(store: ModelStore) -> None:
    publish(store, 2)
    store.move(NAME, 1, who="gate", why="blessed", expected=0)

    with pytest.raises(PreconditionError, match="is now version 1, not none: look again"):
        store.move(NAME, 2, who="gate", why="blessed", expected=0)


def test_a_rollback_leads_to_the_version_that_was_tried_or_nowhere(store: ModelStore) -> None:
    for version in publish(store, 3):
        promote(store, version)

    with pytest.raises(PreconditionError, match="leads to version 2 now, not 1: look again"):
        store.move(NAME, 1, event="rollback", who="tester", why="a test")

    assert store.champion(NAME) == 3


def by_request(store: ModelStore, request_id: str, to: int, event: Literal["promote", "rollback"]) -> HistoryEntry:
    return store.move(NAME, to, event=event, who="tester", why="a test", request_id=request_id)


@pytest.mark.parametrize(("event", "to"), [("promote", 1), ("rollback", 2)])
def test_a_request_that_comes_again_changes_nothing_and_is_told_what_the_first_one_did(
    store: ModelStore, event: Literal["promote", "rollback"], to: int
) -> None:
    for version in publish(store, 4)[:3]:
        promote(store, version)
    first = by_request(store, "6f1c", to, event)
    promote(store, 4)
    shutil.rmtree(store.folder(NAME, to))
    before = store.history(NAME)

    again = by_request(ModelStore(store.root), "6f1c", to, event)

    assert again == first
    assert (again.version, again.request_id) == (to, "6f1c")
    assert store.history(NAME) == before


def test_of_a_request_that_comes_many_times_at_once_one_takes_effect(store: ModelStore) -> None:
    for version in publish(store, 3):
        promote(store, version)
    start = Barrier(8)

    def go_back(_: int) -> HistoryEntry:
        start.wait()
        return by_request(ModelStore(store.root), "6f1c", 2, "rollback")

    with ThreadPoolExecutor(8) as threads:
        done = set(threads.map(go_back, range(8)))

    assert [entry.version for entry in done] == [2]
    assert store.champion(NAME) == 2


def test_the_id_of_another_request_is_refused(store: ModelStore) -> None:
    publish(store, 2)
    by_request(store, "6f1c", 1, "promote")

    for to, event in ((2, "promote"), (1, "rollback")):
        with pytest.raises(InvalidRequestError, match=r"request_id: '6f1c' .* version 1 .* an id of its own"):
            by_request(store, "6f1c", to, event)  # type: ignore[arg-type]  # mypy takes the words of a tuple for any

    assert store.champion(NAME) == 1


def test_a_line_with_a_request_has_the_fields_that_older_regrafts_read_and_no_other(store: ModelStore) -> None:
    publish(store)
    by_request(store, "6f1c", 1, "promote")

    last = json.loads((store.root / NAME / "history.jsonl").read_text().splitlines()[-1])

    assert last.keys() == {"event", "version", "previous", "who", "why", "job", "at"}


@pytest.mark.parametrize("when", ["before it has the lock", "before it writes"])
def test_a_move_that_nobody_waits_for_any_more_does_not_take_effect_later(store: ModelStore, when: str) -> None:
    for version in publish(store, 2):
        promote(store, version)
    before = store.history(NAME)
    answers = iter([when == "before it writes", False])

    def give_up_and_move(move: Callable[[], object]) -> None:
        set_wanted(lambda: next(answers))
        move()

    with pytest.raises(DeadlineError):
        copy_context().run(give_up_and_move, lambda: promote(store, 1))
    answers = iter([when == "before it writes", False])
    with pytest.raises(DeadlineError):
        copy_context().run(give_up_and_move, lambda: set_shadow(store, 1))

    assert store.history(NAME) == before


NO_FOLDER_CAN_BE_OPENED = """
import os, resource, sys
from pathlib import Path
from regraft.errors import StorageError
from regraft.stores.models import ModelStore

store = ModelStore(Path(sys.argv[1]))
store.champion("colours")
lock, history, folder = (os.open("/", os.O_RDONLY) for _ in range(3))
resource.setrlimit(resource.RLIMIT_NOFILE, (folder, folder))
for descriptor in (lock, history, folder):
    os.close(descriptor)
try:
    store.move("colours", 2, who="tester", why="a test")
except StorageError as error:
    print(error)
"""


def test_a_line_that_may_not_be_on_the_disk_is_taken_back_before_the_move_is_said_to_have_failed(
    store: ModelStore,
) -> None:
    publish(store, 2)
    promote(store, 1)

    tried = subprocess.run(  # the folder of the history can not be opened to write it through, nor any third file
        [sys.executable, "-c", NO_FOLDER_CAN_BE_OPENED, str(store.root)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    assert tried.stdout.startswith(f"cannot move the champion of '{NAME}': Too many open files ({store.root / NAME}")
    assert events(store)[2:] == [("promote", 1, None)]


def set_shadow(store: ModelStore, version: int | None) -> None:
    store.set_shadow(NAME, version, who="tester", why="a test")


def test_a_shadow_stays_for_everybody_until_it_is_ended(store: ModelStore) -> None:
    publish(store, 3)
    promote(store, 1)

    set_shadow(store, 2)
    set_shadow(store, 3)
    promote(store, 2)
    assert ModelStore(store.root).shadow(NAME) == 3

    set_shadow(store, None)
    assert ModelStore(store.root).shadow(NAME) is None
    assert events(store)[-4:] == [("shadow", 2, 1), ("shadow", 3, 1), ("promote", 2, 1), ("unshadow", 3, 2)]


def test_the_alias_does_not_care_for_shadows(store: ModelStore) -> None:
    publish(store, 2)
    promote(store, 1)
    promote(store, 2)
    set_shadow(store, 1)

    assert (store.champion(NAME), store.previous_champion(NAME)) == (2, 1)


def test_a_shadow_that_becomes_champion_is_none_any_more_even_after_a_rollback(store: ModelStore) -> None:
    publish(store, 2)
    promote(store, 1)
    set_shadow(store, 2)

    promote(store, 2)
    assert store.shadow(NAME) is None
    rollback(store)
    assert store.shadow(NAME) is None


def test_a_shadow_that_a_rollback_makes_champion_is_none_any_more(store: ModelStore) -> None:
    for version in publish(store, 2):
        promote(store, version)
    set_shadow(store, 1)

    rollback(store)

    assert store.shadow(NAME) is None


def test_what_cannot_shadow_is_refused_and_nothing_is_written(store: ModelStore) -> None:
    publish(store, 2)
    promote(store, 1)
    before = events(store)

    with pytest.raises(NotFoundError):
        set_shadow(store, 7)
    with pytest.raises(PreconditionError, match=r"version 1 .* is the champion"):
        set_shadow(store, 1)
    with pytest.raises(PreconditionError, match="has no shadow"):
        set_shadow(store, None)

    assert events(store) == before


@pytest.mark.parametrize("version", [0, -1, 3, 99])
def test_a_version_that_does_not_exist_is_not_found_and_the_error_says_which_there_are(
    store: ModelStore, version: int
) -> None:
    publish(store, 2)
    promote(store, 1)

    with pytest.raises(NotFoundError, match=rf"no version {version} in .* \(it has: 1, 2\)"):
        store.folder(NAME, version)
    with pytest.raises(NotFoundError):
        promote(store, version)

    assert store.champion(NAME) == 1


def test_a_model_that_does_not_exist_is_not_found(store: ModelStore) -> None:
    with pytest.raises(NotFoundError, match=r"model 'colours' has no version 1 in .* \(it has: none\)"):
        store.folder(NAME, 1)
    with pytest.raises(NotFoundError):
        promote(store, 1)


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_a_name_that_could_leave_the_store_is_refused_everywhere(store: ModelStore, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.versions(name),
        lambda: store.folder(name, 1),
        lambda: store.publish(name, write, who="", why=""),
        lambda: store.champion(name),
        lambda: store.previous_champion(name),
        lambda: store.move(name, 1, who="", why=""),
        lambda: store.next_rollback(name),
        lambda: store.history(name),
    ]

    for call in calls:
        with pytest.raises(InvalidRequestError, match="model name"):
            call()
    assert not store.root.exists()


@pytest.mark.parametrize("name", ["a", "Cats-and_dogs.v2", "0", "a" * 64, "热狗", "حصان", "कुत्ता", "Möwe", "热" * 64])
def test_ordinary_names_of_any_script_are_taken_and_are_folders(store: ModelStore, name: str) -> None:
    publish(store, 1, name)
    store.move(name, 1, who="tester", why="")

    assert store.names() == [name]
    assert store.folder(name, 1) == store.root / name / "1"
    assert store.find(f"{name}:1") == store.find(name) == (name, 1)


def test_both_forms_of_a_name_are_one_model(store: ModelStore) -> None:
    publish(store, 1, "Mo\u0308we")

    assert store.names() == ["M\u00f6we"]
    assert store.find("Mo\u0308we:1") == ("M\u00f6we", 1)
    assert publish(store, 1, "M\u00f6we") == [2]


def test_a_folder_that_came_from_a_mac_is_found_by_its_one_form(store: ModelStore) -> None:
    publish(store, 1, "M\u00f6we")
    (store.root / "M\u00f6we").rename(store.root / "Mo\u0308we")

    assert store.names() == ["M\u00f6we"]
    assert store.versions("M\u00f6we") == [1]
    assert publish(store, 1, "M\u00f6we") == [2]
    assert [path.name for path in store.root.iterdir() if path.name[0] != "."] == ["Mo\u0308we"]


def test_a_new_name_that_some_file_systems_take_for_another_is_refused(store: ModelStore) -> None:
    publish(store, 1, "Cats")

    with pytest.raises(InvalidRequestError, match="'cats': some file systems take it for 'Cats', which is there"):
        publish(store, 1, "cats")

    (store.root / "cats").mkdir()  # of a store that has both already, both go on
    assert publish(store, 1, "cats") == [1]


TORN_AFTER = {"its first byte": 1, "half of it": 60, "all but its last byte": -2, "all but the end of the line": -1}


@pytest.mark.parametrize("kept", TORN_AFTER.values(), ids=TORN_AFTER.keys())
def test_a_torn_last_line_is_ignored_and_stays_so_after_the_next_append(store: ModelStore, kept: int) -> None:
    publish(store, 2)
    promote(store, 1)
    history = store.root / NAME / "history.jsonl"
    whole = history.read_bytes()
    promote(store, 2)
    last_line = history.read_bytes()[len(whole) :]
    history.write_bytes(whole + last_line[:kept])  # what a power cut leaves of a promotion nobody was told of

    assert store.champion(NAME) == 1
    assert len(store.history(NAME)) == 3
    publish(store)
    assert store.champion(NAME) == 1
    assert events(store) == [
        ("publish", 1, None),
        ("publish", 2, None),
        ("promote", 1, None),
        ("publish", 3, 1),
    ]
    promote(store, 3)
    assert (store.champion(NAME), store.previous_champion(NAME)) == (3, 1)


@pytest.mark.parametrize("line", [b"[1, 2]", b"{}", b"null", b"\xff\xfe", b'{"event": "publish"}', b""])
def test_a_line_that_is_no_entry_is_passed_over(store: ModelStore, line: bytes) -> None:
    publish(store)
    promote(store, 1)
    history = store.root / NAME / "history.jsonl"
    history.write_bytes(history.read_bytes() + line + b"\n")

    assert store.champion(NAME) == 1
    assert publish(store) == [2]
    assert len(store.history(NAME)) == 3


@pytest.mark.parametrize(
    ("further", "what"), [({"event": "retire"}, "says 'retire'"), ({"until": "2030"}, "has 'until'")]
)
def test_a_line_that_a_newer_regraft_wrote_is_an_error_that_says_to_upgrade(
    store: ModelStore, further: dict[str, str], what: str
) -> None:
    """Passed over, it would let another version serve than everybody else's."""
    publish(store, 2)
    promote(store, 1)
    history = store.root / NAME / "history.jsonl"
    last = json.loads(history.read_text().splitlines()[-1])
    history.write_text(history.read_text() + json.dumps({**last, **further}) + "\n")
    before = history.read_bytes()

    for ask in (store.champion, store.history, store.shadow, partial(promote, store, 2), partial(publish, store)):
        with pytest.raises(OperatorError, match=f"history.jsonl: line 4 {what}, of which .* knows nothing: upgrade it"):
            ask() if isinstance(ask, partial) else ask(NAME)
    assert history.read_bytes() == before
    assert store.versions(NAME) == [1, 2], "nothing was published beside it"


PUBLISH_SOME = """
import sys
from pathlib import Path
from regraft.stores.models import ModelStore

store = ModelStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    version = store.publish("colours", lambda folder: (folder / "model.onnx").write_bytes(b""), who="child", why="")
    print(version, flush=True)
"""


def test_processes_that_publish_at_once_get_distinct_numbers(store: ModelStore) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH_SOME, str(store.root)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()

    numbers = [int(line) for child in children for line in child.communicate()[0].splitlines()]

    assert sorted(numbers) == list(range(1, 25))
    assert store.versions(NAME) == list(range(1, 25))
    assert [entry.version for entry in store.history(NAME)] == list(range(1, 25))


def test_threads_that_publish_at_once_get_distinct_numbers(store: ModelStore) -> None:
    start = Barrier(8)

    def publish_some(_: int) -> list[int]:
        start.wait()
        return publish(store, 4)

    with ThreadPoolExecutor(8) as threads:
        numbers = [number for some in threads.map(publish_some, range(8)) for number in some]

    assert sorted(numbers) == list(range(1, 33))
    assert store.versions(NAME) == list(range(1, 33))


def test_of_threads_that_promote_with_the_same_expectation_one_wins(store: ModelStore) -> None:
    publish(store, 9)
    promote(store, 9)
    start = Barrier(8)

    def try_to_promote(version: int) -> bool:
        start.wait()
        try:
            store.move(NAME, version, who="gate", why="", expected=9)
        except PreconditionError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(try_to_promote, range(1, 9)))

    assert won.count(True) == 1
    assert store.champion(NAME) == won.index(True) + 1
    assert len(store.history(NAME)) == 11


def test_rollbacks_and_promotions_at_once_leave_a_history_that_agrees_with_itself(store: ModelStore) -> None:
    publish(store, 48)
    for version in range(1, 9):
        promote(store, version)
    start = Barrier(8)

    going_on = threading.Event()
    going_on.set()

    def promote_each_once() -> None:
        start.wait()
        try:
            for version in range(9, 49):  # each one once, so that no promotion is a repetition
                promote(store, version)
        finally:
            going_on.clear()

    def roll_back() -> list[int]:
        went_to = []
        start.wait()
        while going_on.is_set():
            with suppress(PreconditionError):  # somebody moved the champion in between, or there is none to go back to
                went_to.append(rollback(store))
        return went_to

    with ThreadPoolExecutor(8) as threads:
        promoting = threads.submit(promote_each_once)
        rolling_back = [threads.submit(roll_back) for _ in range(7)]
        promoting.result()
        returned = [version for future in rolling_back for version in future.result()]

    line: list[int] = []
    for entry in store.history(NAME):
        assert entry.previous == (line[-1] if line else None)
        if entry.event == "promote":
            line.append(entry.version)
        elif entry.event == "rollback":
            line.pop()
            assert entry.version == line[-1], "a rollback went to another version than the champion before"
    assert store.champion(NAME) == line[-1]
    assert sorted(returned) == sorted(entry.version for entry in store.history(NAME) if entry.event == "rollback")


moves = st.lists(
    st.one_of(st.just(("publish", 0)), st.tuples(st.just("promote"), st.integers(0, 6)), st.just(("rollback", 0))),
    max_size=14,
)


@settings(max_examples=40)
@given(moves=moves)
def test_any_sequence_of_moves_does_what_a_simple_model_does(moves: list[tuple[str, int]]) -> None:
    published = 0
    champions: list[int] = []
    history: list[tuple[str, int, int | None]] = []

    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(Path(folder))
        for move, version in moves:
            champion = champions[-1] if champions else None
            if move == "publish":
                published += 1
                assert publish(store) == [published]
                history.append(("publish", published, champion))
            elif move == "promote" and version == champion:
                continue  # see `test_promoting_the_champion_once_more_does_not_blunt_the_rollback`
            elif move == "promote" and 1 <= version <= published:
                promote(store, version)
                champions.append(version)
                history.append(("promote", version, champion))
            elif move == "promote":
                with pytest.raises(NotFoundError):
                    promote(store, version)
            elif len(champions) > 1:
                champions.pop()
                assert rollback(store) == champions[-1]
                history.append(("rollback", champions[-1], champion))
            else:
                with pytest.raises(PreconditionError):
                    rollback(store)

            again = ModelStore(store.root)
            assert again.versions(NAME) == list(range(1, published + 1))
            assert again.champion(NAME) == (champions[-1] if champions else None)
            assert again.previous_champion(NAME) == (champions[-2] if len(champions) > 1 else None)
            assert events(again) == history


def test_a_store_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    store = ModelStore(tmp_path / "store")

    with pytest.raises(StorageError, match=f"cannot publish a version of '{NAME}'"):
        publish(store)
    assert store.names() == []


@pytest.mark.parametrize("obstacle", [".lock", "history.jsonl"])
def test_a_model_folder_with_something_in_the_way_is_a_storage_error(store: ModelStore, obstacle: str) -> None:
    (store.root / NAME / obstacle).mkdir(parents=True)

    with pytest.raises(StorageError, match=f"cannot publish a version of '{NAME}'"):
        publish(store)
    assert store.versions(NAME) == []


def test_a_store_on_a_file_system_that_takes_no_folders_is_a_storage_error() -> None:
    store = ModelStore(Path("/proc/regraft"))

    with pytest.raises(StorageError, match="/proc/regraft"):
        publish(store)


@pytest.mark.parametrize("text", ["caf\udce9", "\ud800"], ids=ascii)
def test_words_that_are_no_text_are_refused_or_kept_but_never_half_published(store: ModelStore, text: str) -> None:
    publish(store)  # such a text is what Python makes of a file name or an argument that is not UTF-8

    try:
        store.publish(NAME, write, who=text, why="")
    except (RegraftError, ValueError):
        assert store.versions(NAME) == [1]
    assert [entry.version for entry in store.history(NAME)] == store.versions(NAME)


def test_golden_pictures_are_found_behind_links_and_what_other_programs_leave_is_none(store: ModelStore) -> None:
    golden = store.root / "flowers/golden"
    (golden / "@eaDir").mkdir(parents=True)
    (golden / "roses/@eaDir").mkdir(parents=True)
    for name in ("@eaDir/a.jpg", "roses/a.jpg", "roses/.DS_Store", "roses/Thumbs.db", "roses/@eaDir/a.jpg"):
        (golden / name).write_bytes(b"a picture")
    elsewhere = store.root.parent / "elsewhere"
    elsewhere.mkdir()
    (golden / "tulips").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "b.jpg").write_bytes(b"a picture")

    assert store.golden("flowers") == [(golden / "roses/a.jpg", "roses"), (golden / "tulips/b.jpg", "tulips")]
    assert store.golden("ants") == []


def test_a_shadow_bound_to_a_state_of_the_model_is_set_in_that_state_only(store: ModelStore) -> None:
    publish(store)
    publish(store)
    seen = store.etag(NAME)
    store.move(NAME, 1, who="tester", why="a test")
    assert store.etag(NAME) != seen

    with pytest.raises(PreconditionError, match=f"etag: model '{NAME}' has changed since"):
        store.set_shadow(NAME, 2, who="tester", why="a test", etag=seen)
    store.set_shadow(NAME, 2, who="tester", why="a test", etag=store.etag(NAME))
    assert store.shadow(NAME) == 2
