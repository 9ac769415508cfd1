"""Invariant 6: acknowledged examples survive kill -9, and a job killed at any instant leaves everything whole."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from regraft.client.client import Client, RemoteError
from regraft.model import artifact
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobState
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, ModelStore
from regraft.v1 import retraining_pb2
from tests.e2e.conftest import ServerProcess
from tests.tiny import picture
from tests.waiting import wait_until
from training.head.features import load_features

KILLS = 6
RETRAINS_KILLED = 4
"""Of each kind of process, once in each phase; `benchmarks.kill` strikes more often, at random instants."""


def test_every_acknowledged_example_survives_the_killing_of_the_server_again_and_again(store: ModelStore) -> None:
    acknowledged: set[str] = set()
    for round_ in range(KILLS):
        with ServerProcess(store.root) as server, server.client() as client:
            assert client.get_model().served_version == 1
            numbers = range(1000 * round_, 1000 * round_ + 1000)
            acknowledged |= _add_until_killed(client, numbers, server, after=1 + round_ * 10)

    examples = ExamplesStore(store.root / ".examples")
    kept = {example.sha256 for example in examples.labels.in_force("colours")}
    assert len(acknowledged) >= sum(1 + round_ * 10 for round_ in range(KILLS))
    assert acknowledged <= kept
    assert all(examples.image_file(sha256).read_bytes() for sha256 in kept)
    examples.close()


def _add_until_killed(client: Client, numbers: range, server: ServerProcess, after: int) -> set[str]:
    """Stream pictures; kill the server once ``after`` are acknowledged, while more are on their way."""
    acknowledged: set[str] = set()
    answers = client.add_examples((picture("grey", number), "grey") for number in numbers)

    def receive() -> None:
        for answer in answers:
            assert answer.outcome == retraining_pb2.AddExamplesResponse.OUTCOME_ACCEPTED
            acknowledged.add(answer.sha256)
            if len(acknowledged) == after:
                threading.Thread(target=server.kill).start()

    with pytest.raises(RemoteError) as failure:
        receive()
    assert failure.value.code in ("UNAVAILABLE", "CANCELLED", "UNKNOWN")
    return acknowledged


@pytest.mark.parametrize("victim", [pytest.param("the server", marks=pytest.mark.heavy), "the job", "both"])
def test_a_retrain_whose_processes_are_killed_leaves_the_store_whole_and_comes_to_its_end_all_the_same(
    store: ModelStore, victim: str
) -> None:
    instants = _instants()
    acknowledged: set[str] = set()
    for round_ in range(RETRAINS_KILLED):
        with ServerProcess(store.root) as server, server.client() as client:
            wait_until(lambda: _serves_the_champion(client))
            numbers = range(30 * round_, 30 * round_ + 30)
            acknowledged |= {
                answer.sha256 for answer in client.add_examples((picture("grey", number), "grey") for number in numbers)
            }
            job = _start_retrain(client)
            _wait_until(client, job.id, next(instants))
            _kill(server, victim, job.id)
        _assert_whole(store, acknowledged)

    with ServerProcess(store.root) as server, server.client() as client:
        for entry in client.list_jobs():
            *_, end = client.watch_job(entry.id)
            assert end.state in (end.STATE_SUCCEEDED, end.STATE_REFUSED), end.message
        wait_until(lambda: _serves_the_champion(client))  # a job that outlived its server has promoted beside this one
        assert client.classify(picture("red")).predictions[0].label == "red"
        assert server.stop() == 0


def _serves_the_champion(client: Client) -> bool:
    model = client.get_model()
    return model.served_version == model.champion


def _kill(server: ServerProcess, victim: str, job_id: str) -> None:
    """Kill what is named; where only the job is, its server must go on with it, and end as it should."""
    if victim != "the job":
        server.kill(with_children=victim == "both")
        return
    for child in server.children():
        with suppress(ProcessLookupError):  # it came to its end meanwhile
            os.kill(child, signal.SIGKILL)
    with server.client() as client:
        for _ in client.watch_job(job_id):
            pass
    assert server.stop() == 0


def _instants() -> Iterator[str]:
    """Yield phases at which to strike, in turn; the empty one is the moment after the answer to Retrain."""
    while True:
        yield from ("", "read", "fit", "publish")


def _start_retrain(client: Client) -> retraining_pb2.RetrainJob:
    """Start a job once the last one is over, which a child that outlived its server, or a second one, is at work on."""
    for job in client.list_jobs():
        for _ in client.watch_job(job.id):
            pass
    return client.retrain(requested_by="test")


def _wait_until(client: Client, job_id: str, phase: str) -> None:
    order = ["", "read", "embed", "fit", "check", "judge", "publish"]
    for job in client.watch_job(job_id):
        if order.index(job.phase) >= order.index(phase):
            return


def _assert_whole(store: ModelStore, acknowledged: set[str]) -> None:
    champion = store.champion("colours")
    assert champion in store.versions("colours")
    for version in store.versions("colours"):
        folder = store.folder("colours", version)
        assert artifact.read(folder / MODEL_FILE).card.name == "colours"
        assert len(load_features(folder / FEATURES_FILE).sha256) > 0
    examples = ExamplesStore(store.root / ".examples")
    assert all(job.state in JobState for job in examples.jobs.list())
    assert acknowledged <= {example.sha256 for example in examples.labels.in_force("colours")}
    examples.close()
