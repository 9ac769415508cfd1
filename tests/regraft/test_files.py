import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from threading import Barrier, Event

import pytest

from regraft.cancellation import set_wanted
from regraft.errors import DeadlineError, InvalidRequestError, LockedError, StorageError
from regraft.files import fsync_folder, locked, locked_or_none, storage_errors, write_durably
from tests import REPOSITORY
from tests.full_disk import disk_full_after

HOLD_THE_LOCK = """
import sys
from pathlib import Path
from regraft.files import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def process_holding(lock: Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(lock)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("data", [b"", b"new", bytes(3_000_000)], ids=["nothing", "a little", "much"])
def test_what_was_written_durably_is_there_whole_and_alone(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"

    write_durably(path, data)

    assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_writing_again_replaces_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"a long old content")

    write_durably(path, b"new")

    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_who_opened_the_old_file_keeps_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    with path.open("rb") as reader:
        write_durably(path, b"new")

        assert reader.read() == b"old"


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    with disk_full_after(1000), pytest.raises(OSError, match="File too large"):
        write_durably(path, bytes(5000))

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_cannot_take_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()

    with pytest.raises(IsADirectoryError):
        write_durably(path, b"new")

    assert list(tmp_path.iterdir()) == [path]
    assert list(path.iterdir()) == []


def test_writing_into_a_folder_that_is_not_there_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "nowhere" / "file", b"new")


def test_syncing_a_folder_that_is_not_there_fails_and_one_that_is_does_not(tmp_path: Path) -> None:
    fsync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        fsync_folder(tmp_path / "nowhere")


def test_syncing_a_folder_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(10):
        fsync_folder(tmp_path)

    assert len(list(Path("/proc/self/fd").iterdir())) < before + 10


def test_a_lock_excludes_another_process_until_that_process_is_dead(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with process_holding(lock) as child:
        with locked_or_none(lock) as taken:
            assert not taken

        child.send_signal(signal.SIGKILL)
        child.wait()

        with locked_or_none(lock) as taken:
            assert taken


def test_a_failed_try_does_not_take_the_lock_from_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "lock"

    with process_holding(lock):
        for _ in range(3):
            with locked_or_none(lock) as taken:
                assert not taken


def test_a_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    lock = tmp_path / "lock"

    with locked(lock), locked_or_none(lock) as taken:
        assert not taken
    with locked_or_none(lock) as taken, locked_or_none(lock) as taken_twice:
        assert (taken, taken_twice) == (True, False)
    with locked(lock):
        pass


def test_a_lock_is_free_again_after_an_error_in_its_block(tmp_path: Path) -> None:
    lock = tmp_path / "lock"

    with pytest.raises(ZeroDivisionError), locked(lock):
        _ = 1 / 0

    with locked_or_none(lock) as taken:
        assert taken


def test_locking_leaves_the_content_of_the_file_as_it_is(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("content")

    with locked(lock):
        pass
    with locked_or_none(lock):
        pass

    assert lock.read_text() == "content"


def test_threads_that_wait_for_the_lock_go_one_by_one(tmp_path: Path) -> None:
    lock, counter = tmp_path / "lock", tmp_path / "counter"
    counter.write_text("0")
    start = Barrier(8)

    def count(_: int) -> None:
        start.wait()
        for _ in range(25):
            with locked(lock):
                counter.write_text(str(int(counter.read_text()) + 1))  # loses counts if two do it at a time

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(8)))

    assert counter.read_text() == "200"


def test_an_error_of_the_system_becomes_a_storage_error_that_says_what_and_where(tmp_path: Path) -> None:
    complaint = "cannot keep the thing: No such file or directory"

    with pytest.raises(StorageError, match=complaint) as caught, storage_errors("cannot keep the thing"):
        (tmp_path / "nowhere").read_bytes()

    assert str(tmp_path / "nowhere") in str(caught.value)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_an_error_of_the_system_that_names_no_file_is_put_into_words_too() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match=f"cannot keep it: {full.strerror}"), storage_errors("cannot keep it"):
        raise full


@pytest.mark.parametrize("error", [ValueError("a bug"), InvalidRequestError("label: empty"), KeyboardInterrupt()])
def test_other_errors_stay_what_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, storage_errors("cannot keep the thing"):
        raise error

    assert caught.value is error


WITHOUT_A_HOME = """
import os, pwd
from regraft.errors import RegraftError
from regraft.files import cache_folder
from regraft.machine import user_name
number = next(number for number in range(54321, 65000) if number not in {entry.pw_uid for entry in pwd.getpwall()})
os.setuid(number)
del os.environ["HOME"], os.environ["REGRAFT_CACHE"]
print(user_name() == f"uid {number}")
try:
    cache_folder()
except RegraftError as error:
    print(error)
os.environ["REGRAFT_CACHE"] = "/var/cache/regraft"
print(cache_folder())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user that the system does not know")
def test_a_user_without_home_and_name_is_told_in_one_line_what_to_set() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_A_HOME], capture_output=True, text=True, check=False)

    assert done.stdout.splitlines() == [
        "True",
        "this user has no home folder for the cache: set REGRAFT_CACHE to a folder that it may write to",
        "/var/cache/regraft",
    ], done.stderr


def test_whoever_waits_for_a_lock_in_vain_is_told_who_holds_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"

    held = rf"process {os.getpid()} \(.*\) has held {lock}"
    with locked(lock), pytest.raises(LockedError, match=held), locked(lock, patience_s=0.02):
        pytest.fail("two hold it")
    with locked(lock):
        pass


def test_whoever_waits_for_a_lock_gets_it_as_soon_as_it_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with ThreadPoolExecutor(1) as thread:
        with locked(lock):
            waiting = thread.submit(take, lock)

        assert waiting.result(60) == "taken"


def test_a_lock_that_nobody_waits_for_any_more_is_never_taken(tmp_path: Path) -> None:
    lock, is_given_up = tmp_path / "lock", Event()
    context = copy_context()
    context.run(set_wanted, lambda: not is_given_up.is_set())

    with ThreadPoolExecutor(1) as thread:
        with locked(lock):
            waiting = thread.submit(context.run, take, lock)
            is_given_up.set()
        with pytest.raises(DeadlineError, match="was not done"):
            waiting.result(60)
        with pytest.raises(DeadlineError):
            context.run(take, lock)  # nor where it is free


def take(lock: Path) -> str:
    with locked(lock, patience_s=60):
        return "taken"
