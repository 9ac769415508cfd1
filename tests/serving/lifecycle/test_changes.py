"""Models that come and go on a live server."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from regraft.client.client import Client, RemoteError
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.jobs import JobState
from regraft.stores.models import ModelStore
from regraft.v1 import models_pb2, retraining_pb2
from tests.live_server import LiveServer, reading_the_pipe, stalled_retrain
from tests.serving.conftest import AuditLines
from tests.serving.refusals import fails_with
from tests.tiny import add_tiny_backbone, begin_tiny, picture, publish_tiny
from tests.waiting import wait_until

NAME = "flowers"


@pytest.fixture
def beginning(empty_store: ModelStore) -> Iterator[LiveServer]:
    """A server on a store that holds a backbone and nothing else."""
    add_tiny_backbone(empty_store)
    with LiveServer(empty_store) as live:
        yield live


def label(client: Client, count: int, *colours: str, name: str = NAME) -> None:
    pairs = [(picture(colour, number), colour) for colour in colours for number in range(count)]
    for answer in client.add_examples(pairs, name=name):
        assert answer.outcome == retraining_pb2.AddExamplesResponse.OUTCOME_ACCEPTED, answer.reason


def retrained(client: Client, name: str = NAME, min_accuracy: float | None = None) -> retraining_pb2.RetrainJob:
    *_, job = client.watch_job(client.retrain(name=name, min_accuracy=min_accuracy).id)
    return job


def test_from_nothing_to_an_answer_over_grpc_alone(beginning: LiveServer) -> None:
    client = beginning.client
    assert client.is_serving("regraft.v1.Models"), "or nobody could begin"
    assert not client.is_serving("regraft.v1.Classifier")

    done = client.create_model(NAME, "tiny", ("red", "blue"), who="Ann", why="a start")
    assert (done.model.name, done.model.champion, done.model.backbone) == (NAME, 0, "tiny")
    assert (list(done.model.labels), done.model.label_set) == (["red", "blue"], models_pb2.LABEL_SET_OPEN)
    assert (done.effect.event, done.effect.who, done.effect.why) == ("create", "Ann", "a start")
    early = fails_with(lambda: client.classify(picture("red"), name=NAME))
    assert (early.code, str(early)) == (
        "FAILED_PRECONDITION",
        "model 'flowers' has no version yet: it needs 2 classes with 2 pictures each; there are 0 and 0",
    )
    label(client, 1, "red")
    assert client.get_model(NAME).missing == "2 classes with 2 pictures each; there are 1 and 0"
    assert fails_with(lambda: client.retrain(name=NAME)).code == "FAILED_PRECONDITION"

    label(client, 12, "green", "blue")
    job = retrained(client, min_accuracy=90)

    assert (job.state, job.version, job.champion) == (retraining_pb2.RetrainJob.STATE_SUCCEEDED, 1, 0), job.message
    assert job.verdict.first.cross_validated_accuracy == 1
    assert job.verdict.first.low > 0.7
    answer = client.classify(picture("green", 99), name=NAME)
    assert (answer.version, answer.predictions[0].label) == (1, "green")
    model = client.get_model(NAME)
    assert (model.champion, model.missing, list(model.labels)) == (1, "", ["blue", "green"])
    assert [entry.event for entry in model.history] == ["promote", "publish", "create"]
    assert client.is_serving("regraft.v1.Classifier")


def test_two_classes_of_two_pictures_are_enough_for_a_first_answer(beginning: LiveServer) -> None:
    beginning.client.create_model(NAME)
    label(beginning.client, 2, "red", "blue")
    assert beginning.client.get_model(NAME).missing == "a retrain: there are labels enough for a first version"

    assert retrained(beginning.client).version == 1
    assert beginning.client.classify(picture("red", 9), name=NAME).predictions[0].label == "red"


@pytest.mark.parametrize(
    ("name", "backbone", "labels", "label_set", "code", "text"),
    [
        ("colours", "tiny", (), "", "ALREADY_EXISTS", "there is a model 'colours'"),
        ("gone", "tiny", (), "", "ALREADY_EXISTS", "in the trash: `regraft models restore gone`"),
        ("../up", "tiny", (), "", "INVALID_ARGUMENT", "model name '../up'"),
        ("", "tiny", (), "", "INVALID_ARGUMENT", "model name ''"),
        ("Colours", "tiny", (), "", "INVALID_ARGUMENT", "some file systems take it for 'colours'"),
        ("new", "resnet", (), "", "NOT_FOUND", "(it has: tiny); `regraft backbones add efficientnet_lite0` makes one"),
        ("new", "tiny", ("a",), "closed", "INVALID_ARGUMENT", "tells two classes apart"),
        ("new", "tiny", ("a", "a"), "", "INVALID_ARGUMENT", "'a' is there twice"),
        ("new", "tiny", ("a/b",), "", "INVALID_ARGUMENT", "path separators"),
    ],
)
def test_what_cannot_begin_is_refused_with_its_reason(
    coming_and_gone: LiveServer, name: str, backbone: str, labels: tuple[str, ...], label_set: str, code: str, text: str
) -> None:
    refused = fails_with(lambda: coming_and_gone.client.create_model(name, backbone, labels, label_set=label_set))

    assert refused.code == code
    assert text in str(refused)
    assert [model.name for model in coming_and_gone.client.list_models()] == ["colours"]


@pytest.fixture(scope="module")
def coming_and_gone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with the model ``colours``, and ``gone`` in the trash."""
    store = ModelStore(tmp_path_factory.mktemp("coming") / "store")
    publish_tiny(store)
    begin_tiny(store, "gone")
    store.folders.delete("gone", who="Ann", why="a test")
    with LiveServer(store) as live:
        yield live


def test_the_trash_is_listed_where_it_is_asked_for(coming_and_gone: LiveServer) -> None:
    listed = coming_and_gone.client.list_models(show_deleted=True)

    assert [(model.name, model.HasField("kept_until")) for model in listed] == [("colours", False), ("gone", True)]
    kept_until = listed[1].kept_until.ToDatetime(UTC)
    assert timedelta(days=29) < kept_until - datetime.now(UTC) < timedelta(days=31)
    assert listed[1].history[0].event == "delete"


def test_a_server_with_closed_labels_begins_no_open_model(empty_store: ModelStore) -> None:
    add_tiny_backbone(empty_store)
    with LiveServer(empty_store, labels="closed") as live:
        refused = fails_with(lambda: live.client.create_model(NAME, label_set="open"))
        assert (refused.code, str(refused)) == (
            "INVALID_ARGUMENT",
            "label_set: this server takes no labels beyond those named (--labels closed)",
        )
        done = live.client.create_model(NAME, labels=("red", "blue"))
        assert done.model.label_set == models_pb2.LABEL_SET_CLOSED


def test_a_request_to_begin_that_comes_twice_begins_one_model(beginning: LiveServer) -> None:
    first = beginning.client.create_model(NAME, request_id="1")
    again = beginning.client.create_model(NAME, request_id="1")

    assert first.effect == again.effect
    assert fails_with(lambda: beginning.client.create_model(NAME, labels=("a", "b"), request_id="1")).code == (
        "INVALID_ARGUMENT"
    )


def test_a_model_is_not_trained_anew_before_its_first_retrain(beginning: LiveServer) -> None:
    beginning.client.create_model(NAME)

    refused = fails_with(lambda: beginning.client.train(name=NAME))

    assert refused.code == "FAILED_PRECONDITION"
    assert "a retrain" in str(refused)
    assert beginning.client.list_jobs() == []


def test_a_deleted_model_is_not_found_and_comes_back_as_it_was(store: ModelStore, audit_lines: AuditLines) -> None:
    with LiveServer(store) as live:
        client, before = live.client, live.client.classify(picture("red"))
        deleted = client.delete_model("colours", who="Ben", why="a mistake")

        assert (deleted.effect.event, deleted.effect.previous, deleted.effect.who) == ("delete", 1, "Ben")
        for call in (
            lambda: client.classify(picture("red"), name="colours"),
            lambda: client.get_model("colours"),
            lambda: client.retrain(name="colours"),
            lambda: client.delete_model("colours"),
        ):
            assert fails_with(call).code == "NOT_FOUND"
        assert client.list_models() == []
        assert live.metric("regraft_served_version", model="colours") is None

        restored = client.restore_model("colours", who="Cat")
        assert (restored.model.served_version, restored.effect.event) == (1, "restore")
        assert client.classify(picture("red"), name="colours").predictions == before.predictions
        assert fails_with(lambda: client.restore_model("colours")).code == "ALREADY_EXISTS"
        effects = [line["effect"] for line in audit_lines() if line["effect"]]
        assert [effect["event"] for effect in effects] == ["delete", "restore"]
        assert effects[0]["kept_until"].startswith("20")


def test_a_deletion_that_goes_by_an_old_state_changes_nothing(store: ModelStore) -> None:
    with LiveServer(store) as live:
        etag = live.client.get_model("colours").etag
        live.client.shadow(publish_tiny(store, sharpness=5.0, promote=False))

        assert fails_with(lambda: live.client.delete_model("colours", etag=etag)).code == "FAILED_PRECONDITION"
        live.client.delete_model("colours", etag=live.client.get_model("colours").etag)


def test_a_deletion_ends_the_unfinished_job_of_the_model(store: ModelStore) -> None:
    with LiveServer(store) as live, closing(ExamplesStore(store.root / EXAMPLES_FOLDER)) as examples:
        with stalled_retrain(store):
            job = live.client.retrain()
            with reading_the_pipe(store):
                live.client.delete_model("colours")
                wait_until(lambda: examples.jobs.get(job.id).state is JobState.CANCELLED)
            live.client.restore_model("colours")
        assert live.client.classify(picture("red")).version == 1


def test_a_model_that_is_deleted_under_load_answers_what_it_has_and_is_not_found_from_then_on(
    store: ModelStore,
) -> None:
    stop, codes = threading.Event(), []

    def ask(client: Client) -> None:
        while not stop.is_set():
            try:
                client.classify(picture("red"), name="colours")
                codes.append("OK")
            except RemoteError as error:
                codes.append(error.code)

    with LiveServer(store) as live, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, live.client) for _ in range(4)]
        wait_until(lambda: codes.count("OK") > 20)
        live.client.delete_model("colours")
        wait_until(lambda: codes.count(grpc.StatusCode.NOT_FOUND.name) > 20)
        stop.set()
        for each in asking:
            each.result()
    assert set(codes) == {"OK", "NOT_FOUND"}


def test_what_another_process_left_half_deleted_is_gone_and_its_job_cancelled(store: ModelStore) -> None:
    with closing(ExamplesStore(store.root / EXAMPLES_FOLDER)) as examples:
        job = examples.jobs.create("colours", {}, "Ann")
        store.folders.delete("colours", who="Ben", why="")  # and its server was killed before it came to the job
        (store.root / ".trash" / "colours").rename(store.root / "colours")  # nor did the rename outlive the power cut
        with LiveServer(store) as live:
            wait_until(lambda: examples.jobs.get(job.id).state is JobState.CANCELLED)
            wait_until((store.root / ".trash" / "colours").is_dir)
            assert live.client.list_models() == []


def test_the_trash_lets_go_of_a_model_when_its_days_are_over(store: ModelStore) -> None:
    with closing(ExamplesStore(store.root / EXAMPLES_FOLDER)) as examples:
        examples.add("colours", picture("grey"), "grey")
        store.folders.delete("colours", who="Ben", why="")
        with LiveServer(store, trash_days=0.0) as live:
            wait_until(lambda: not (store.root / ".trash" / "colours").exists())
            wait_until(lambda: examples.labels.count("colours") == 0)
            wait_until(lambda: store.folders.purging() == [])
            assert fails_with(lambda: live.client.restore_model("colours")).code == "NOT_FOUND"
            wait_until(lambda: live.metric("regraft_models_deleted") == 0)
