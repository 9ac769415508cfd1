"""The machine fails under a real server that is answering: nobody who only asks notices, and nothing is lost.

See docs/reliability.md; `test_kill`, `test_shutdown` and `test_hostile_clients` have the other faults.
"""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regraft.client.client import Client, RemoteError
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobState
from regraft.stores.models import MODEL_FILE, ModelStore
from regraft.v1 import retraining_pb2
from tests.e2e.conftest import ServerProcess, others_unharmed
from tests.postgresql import PostgreSQL
from tests.tiny import picture, publish_tiny
from tests.waiting import wait_until

ACCEPTED = retraining_pb2.AddExamplesResponse.OUTCOME_ACCEPTED
MB = 2**20


class SmallDisk:
    """A file system in memory, mounted for the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.folder / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return

    def make_room(self) -> None:
        (self.folder / "filler").unlink()

    def allow_writing(self, *, allowed: bool) -> None:
        _mount("-o", f"remount,{'rw' if allowed else 'ro'}", str(self.folder))


def _mount(*arguments: str) -> None:
    subprocess.run(["/bin/mount", *arguments], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", "size=16m", "none", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here, which takes root: {error}")
    yield SmallDisk(folder)
    subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)


def _add(client: Client, numbers: range) -> set[str]:
    """Send pictures of grey, and return the hashes of those that were accepted before the stream ended or failed."""
    kept: set[str] = set()
    try:
        for answer in client.add_examples((picture("grey", number), "grey") for number in numbers):
            assert answer.outcome == ACCEPTED
            kept.add(answer.sha256)
    except RemoteError as error:
        if error.code != "UNAVAILABLE":  # that is: a disk or a database that refuses
            raise
    return kept


def _kept(root: Path, database: str = "") -> set[str]:
    examples = ExamplesStore(root, database)
    try:
        return {example.sha256 for example in examples.labels.in_force("colours")}
    finally:
        examples.close()


def _end_of(client: Client, job: retraining_pb2.RetrainJob) -> retraining_pb2.RetrainJob:
    *_, end = client.watch_job(job.id)
    return end


def test_a_full_disk_refuses_labels_and_retrains_and_all_goes_on_when_there_is_room_again(disk: SmallDisk) -> None:
    store = ModelStore(disk.folder / "store")
    publish_tiny(store)
    with ServerProcess(store.root) as server, server.client() as client:
        with others_unharmed(server.places["grpc"]):
            acknowledged = _add(client, range(30))
            assert len(acknowledged) == 30
            disk.fill()
            acknowledged |= _add(client, range(30, 3000))
            assert len(acknowledged) < 3000
            refused = _try_to_retrain(client)
            assert refused != JobState.SUCCEEDED
            assert client.get_model().champion == 1
            disk.make_room()
            acknowledged |= _add(client, range(3000, 3030))
            assert _end_of(client, client.retrain()).state == retraining_pb2.RetrainJob.STATE_SUCCEEDED
        assert server.stop() == 0

    assert acknowledged <= _kept(store.root / ".examples")
    assert store.versions("colours") == [1, store.champion("colours")]


def _try_to_retrain(client: Client) -> str:
    """Retrain where there is no room: either nothing begins, or the job says how it ended."""
    try:
        return JobState[retraining_pb2.RetrainJob.State.Name(_end_of(client, client.retrain()).state)]
    except RemoteError as error:
        if error.code not in ("UNAVAILABLE", "FAILED_PRECONDITION"):
            raise
        return error.code


def test_a_model_store_that_turns_read_only_stops_promotions_and_retrains_and_nothing_else(
    disk: SmallDisk, tmp_path: Path
) -> None:
    store, examples = ModelStore(disk.folder), tmp_path / "examples"
    publish_tiny(store)
    second = publish_tiny(store, sharpness=10, promote=False)
    with ServerProcess(store.root, "--examples", str(examples)) as server, server.client() as client:
        with others_unharmed(server.places["grpc"]):
            disk.allow_writing(allowed=False)
            assert len(_add(client, range(60))) == 60
            with pytest.raises(RemoteError) as failure:
                client.promote(second)
            assert failure.value.code == "UNAVAILABLE"
            assert "Read-only" in str(failure.value)
            refused = _end_of(client, client.retrain())
            assert (refused.state, client.get_model().served_version) == (retraining_pb2.RetrainJob.STATE_FAILED, 1)
            assert "Read-only" in refused.message
            disk.allow_writing(allowed=True)
            assert client.promote(second).model.served_version == second
        assert server.stop() == 0

    assert len(_kept(examples)) == 60


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"rubbish" * 1000),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: path.unlink(),
        lambda path: shutil.rmtree(path.parent),
    ],
    ids=["rubbish", "empty", "cut short", "gone", "the whole version gone"],
)
def test_a_server_goes_on_with_what_it_has_when_files_of_the_store_are_spoilt(
    store: ModelStore, spoil: Callable[[Path], object]
) -> None:
    second = publish_tiny(store, sharpness=10, promote=False)
    with ServerProcess(store.root) as server, server.client() as client:
        with others_unharmed(server.places["grpc"]):
            for version in (1, second):
                spoil(store.folder("colours", version) / MODEL_FILE)
            with pytest.raises(RemoteError) as failure:
                client.promote(second)
            assert failure.value.code in ("FAILED_PRECONDITION", "NOT_FOUND")
            assert client.get_model().served_version == 1
        assert server.stop() == 0


def test_a_retrain_that_is_stopped_in_its_tracks_holds_nobody_up_and_can_be_cancelled(store: ModelStore) -> None:
    with ServerProcess(store.root) as server, server.client() as client:
        with others_unharmed(server.places["grpc"]):
            assert len(_add(client, range(60))) == 60
            job = client.retrain()
            next(state for state in client.watch_job(job.id) if state.state == retraining_pb2.RetrainJob.STATE_RUNNING)
            for child in server.children():
                os.kill(child, signal.SIGSTOP)
            client.cancel_job(job.id)
            end = _end_of(client, job)
        assert end.state in (retraining_pb2.RetrainJob.STATE_CANCELLED, retraining_pb2.RetrainJob.STATE_FAILED)
        assert _end_of(client, client.retrain()).state == retraining_pb2.RetrainJob.STATE_SUCCEEDED
        assert server.stop() == 0


def test_a_database_that_is_restarted_costs_no_acknowledged_label_and_no_answer(
    store: ModelStore, tmp_path: Path
) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with PostgreSQL.shared(folder) as cluster:
        database = cluster.new_database()
        with ServerProcess(store.root, "--database", database) as server, server.client() as client:
            with others_unharmed(server.places["grpc"]):
                acknowledged = _add(client, range(20))
                sending = threading.Thread(target=lambda: acknowledged.update(_add(client, range(20, 5000))))
                sending.start()
                wait_until(lambda: len(_kept(store.root / ".examples", database)) > 25)
                cluster.stop()
                sending.join()
                cluster.start()
                wait_until(lambda: _adds_again(client, acknowledged))
                assert _end_of(client, client.retrain()).state == retraining_pb2.RetrainJob.STATE_SUCCEEDED
            assert server.stop() == 0

        assert acknowledged <= _kept(store.root / ".examples", database)


def test_a_database_that_says_nothing_any_more_delays_neither_swaps_nor_the_end(
    store: ModelStore, tmp_path: Path
) -> None:
    publish_tiny(store, sharpness=5.0, promote=False)
    folder = tmp_path / "cluster"
    folder.mkdir()
    with PostgreSQL.shared(folder) as cluster:
        with ServerProcess(store.root, "--database", cluster.new_database()) as server, server.client() as client:
            assert _add(client, range(3))
            places = server.places["grpc"]
            # Were they to wait for the database, it would be for longer than 20 seconds.
            with cluster.stopped(), Client(places, timeout_s=1) as hasty, Client(places, timeout_s=20) as other:
                with ThreadPoolExecutor(20) as threads:
                    calls: list[Callable[[], object]] = [*(12 * [hasty.list_jobs])]
                    calls += 8 * [lambda: hasty.relabel_example(64 * "0", "red")]
                    asked = [threads.submit(call) for call in calls]
                    assert other.promote(2).model.served_version == 2
                    assert other.classify(picture("red")).version == 2
                assert {_code_of(ask.exception()) for ask in asked} == {"DEADLINE_EXCEEDED"}
                assert server.stop() == 0, "and soon: threads still wait for the database"
        assert "stopped; 0 call(s) cut" in server.log.read_text()


def _code_of(error: BaseException | None) -> str:
    assert isinstance(error, RemoteError)
    return error.code


def _adds_again(client: Client, acknowledged: set[str]) -> bool:
    added = _add(client, range(5000, 5001))
    acknowledged |= added
    return bool(added)


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not there (Debian: faketime)")
def test_a_clock_that_jumps_by_years_fails_no_request_and_no_retrain(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    monkeypatch.setenv("LD_PRELOAD", str(FAKETIME))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(clock))
    monkeypatch.setenv("FAKETIME_CACHE_DURATION", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    server = ServerProcess(store.root)
    monkeypatch.undo()
    with server, server.client() as client:
        with others_unharmed(server.places["grpc"], pause_s=0.03) as load:
            for number, jump in enumerate(("+400d", "-400d")):
                clock.write_text(jump)
                load.wait_for(100)
                assert len(_add(client, range(60 * number, 60 * number + 60))) == 60
                job = _end_of(client, client.retrain())
                assert job.state == retraining_pb2.RetrainJob.STATE_SUCCEEDED, job.message
            assert client.rollback().model.served_version == job.champion
        assert server.stop() == 0

    before, *after, last = store.history("colours")[1:]
    years = [int(event.at[:4]) for event in (before, after[0], last)]
    assert years[1] > years[0] > years[2]
