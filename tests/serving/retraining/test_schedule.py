from regraft.client.client import Client
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.jobs import JobState, RetrainJob
from regraft.stores.models import ModelStore
from regraft.v1 import retraining_pb2
from tests.live_server import LiveServer
from tests.tiny import picture
from tests.waiting import wait_until


def send(client: Client, numbers: range) -> None:
    for answer in client.add_examples((picture("grey", number), "grey") for number in numbers):
        assert answer.outcome == retraining_pb2.AddExamplesResponse.OUTCOME_ACCEPTED


def jobs_of(store: ModelStore) -> list[RetrainJob]:
    examples = ExamplesStore(store.root / EXAMPLES_FOLDER)
    found = examples.jobs.list("colours")
    examples.close()
    return found


def test_a_retrain_is_started_when_enough_was_labelled_and_not_before(store: ModelStore) -> None:
    with LiveServer(store, retrain_every=0.4, min_new=30) as server:
        send(server.client, range(29))
        schedule_looked = len(jobs_of(store))
        send(server.client, range(29, 30))
        wait_until(lambda: any(job.state is JobState.SUCCEEDED for job in jobs_of(store)))

        (job,) = [job for job in jobs_of(store) if job.state is JobState.SUCCEEDED]
        assert schedule_looked == 0
        assert job.requested_by == "schedule"
        assert store.champion("colours") == 2


def test_two_servers_on_one_store_retrain_once_between_them(store: ModelStore) -> None:
    with LiveServer(store, retrain_every=0.4, min_new=40) as one, LiveServer(store, retrain_every=0.4, min_new=40):
        send(one.client, range(40))
        wait_until(lambda: store.champion("colours") == 2)
        wait_until(lambda: all(job.state.is_final for job in jobs_of(store)))

        assert [job.state for job in jobs_of(store)].count(JobState.SUCCEEDED) == 1


def test_a_gate_on_manual_holds_for_scheduled_retrains_too(store: ModelStore) -> None:
    with LiveServer(store, retrain_every=0.4, min_new=30, gate="manual") as server:
        send(server.client, range(30))
        wait_until(lambda: any(job.state is JobState.SUCCEEDED for job in jobs_of(store)))

        assert server.client.get_model().champion == 1
        assert store.versions("colours") == [1, 2]
