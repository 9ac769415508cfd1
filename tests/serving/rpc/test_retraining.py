import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from regraft.client.client import Client, RemoteError
from regraft.errors import InvalidRequestError
from regraft.label_rules import image_hash, is_holdout
from regraft.model.card import EmbeddingKey
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobKind, JobState, LearningPoint
from regraft.stores.models import ModelStore
from regraft.stores.originals import OriginalPicture
from regraft.stores.recovery import job_lock
from regraft.v1 import retraining_pb2 as pb
from regraft.v1 import retraining_pb2_grpc as pb_grpc
from tests.live_server import LiveServer, process_of_job, reading_the_pipe, stalled_retrain
from tests.postgresql import PostgreSQL
from tests.tiny import begin_tiny, picture, publish_tiny, tiny_backbone, tiny_features
from tests.training.conftest import COLOUR_KEY
from tests.waiting import wait_until

ACCEPTED, DUPLICATE = pb.AddExamplesResponse.OUTCOME_ACCEPTED, pb.AddExamplesResponse.OUTCOME_DUPLICATE
RELABELLED, REJECTED = pb.AddExamplesResponse.OUTCOME_RELABELLED, pb.AddExamplesResponse.OUTCOME_REJECTED
CONFLICTING = pb.AddExamplesResponse.OUTCOME_CONFLICTING
GREY = [picture("grey", number) for number in range(30)]


def end_of(client: Client, job: pb.RetrainJob) -> pb.RetrainJob:
    """Watch a job to its end."""
    states = list(client.watch_job(job.id))
    active = (pb.RetrainJob.STATE_PENDING, pb.RetrainJob.STATE_RUNNING)
    assert all(state.state in active for state in states[:-1])
    assert states[-1].state not in active
    assert states[-1] == client.get_job(job.id)
    assert states[-1].HasField("finished_at")
    return states[-1]


def running(client: Client, job: pb.RetrainJob) -> None:
    wait_until(lambda: client.get_job(job.id).state == pb.RetrainJob.STATE_RUNNING)


def test_each_example_is_answered_with_what_became_of_it(live: LiveServer) -> None:
    """A bad one does not end the stream."""
    sent = [
        (GREY[0], "grey"),
        (GREY[0], "grey"),
        (GREY[0], "silver"),
        (b"no picture", "grey"),
        (GREY[1], " "),
        (GREY[1], "a/b"),
        (GREY[1], "grey"),
    ]
    answers = list(live.client.add_examples(sent, source="a test"))

    outcomes = [ACCEPTED, DUPLICATE, CONFLICTING, REJECTED, REJECTED, REJECTED, ACCEPTED]
    assert [answer.outcome for answer in answers] == outcomes
    assert [answer.sha256 for answer in answers] == [image_hash(image) for image, _ in sent]
    assert answers[2].reason == "this stream called the same picture 'grey' before"
    assert "not a picture" in answers[3].reason
    assert "label" in answers[4].reason
    assert "path separators" in answers[5].reason
    assert {answers[row].reason for row in (0, 1, 6)} == {""}
    counts = {"accepted": 2, "duplicate": 1, "conflicting": 1, "rejected": 3}
    for outcome, count in counts.items():
        assert live.metric("regraft_examples_total", outcome=outcome) == count


def test_pictures_of_one_message_are_taken_in_as_those_of_a_stream(live: LiveServer) -> None:
    sent = [(GREY[0], "grey"), (b"no picture", "grey"), (GREY[0], "silver"), (GREY[1], "grey"), (GREY[0], "grey")]
    requests = [pb.AddExamplesRequest(image=image, label=label) for image, label in sent]

    answers = live.client.add_examples_batch(requests)

    assert [answer.outcome for answer in answers] == [ACCEPTED, REJECTED, CONFLICTING, ACCEPTED, DUPLICATE]
    assert [answer.sha256 for answer in answers] == [image_hash(image) for image, _ in sent]
    assert len(list(live.client.list_examples())) == 2
    assert live.metric("regraft_examples_total", outcome="accepted") == 2


def test_the_pictures_of_one_message_are_within_the_callers_quota(store: ModelStore) -> None:
    with LiveServer(store, labels_per_hour=2) as live:
        answers = live.client.add_examples_batch(pb.AddExamplesRequest(image=each, label="grey") for each in GREY[:4])

    assert Counter(answer.outcome for answer in answers) == {ACCEPTED: 2, REJECTED: 2}
    assert {answer.reason.partition(":")[0] for answer in answers} == {"", "quota"}


@pytest.mark.parametrize("count", [0, 257])
def test_a_message_holds_1_to_256_pictures(shared: LiveServer, count: int) -> None:
    calls: list[Callable[[], object]] = [
        lambda: shared.client.add_examples_batch(count * [pb.AddExamplesRequest()]),
        lambda: shared.client.classify_batch(count * [b""]),
    ]
    for call in calls:
        with pytest.raises(RemoteError, match=f"requests: {count} pictures; a message holds 1 to 256") as failure:
            call()
        assert failure.value.code == "INVALID_ARGUMENT"


def test_what_one_stream_said_another_may_correct(client: Client) -> None:
    list(client.add_examples([(GREY[0], "grey")]))

    (answer,) = client.add_examples([(GREY[0], "silver")])

    assert answer.outcome == RELABELLED


def test_of_two_labels_in_one_stream_the_first_holds(store: ModelStore, client: Client) -> None:
    answers = list(client.add_examples([(GREY[0], "grey"), (GREY[0], "silver"), (GREY[0], "grey")]))

    assert [answer.outcome for answer in answers] == [ACCEPTED, CONFLICTING, DUPLICATE]
    examples = ExamplesStore(store.root / ".examples")
    assert [labelling.label for labelling in examples.labels.history("colours", answers[0].sha256)] == ["grey"]
    examples.close()


def test_with_closed_labels_no_new_class_can_be_brought_in(store: ModelStore) -> None:
    with LiveServer(store, labels="closed") as live:
        sent = [(GREY[0], "grey"), (picture("red", 100), "red")]
        refused, taken = live.client.add_examples(sent)
        with pytest.raises(RemoteError, match="--labels closed"):
            live.client.relabel_example(taken.sha256, "grey")

    assert (refused.outcome, taken.outcome) == (REJECTED, ACCEPTED)
    assert "label 'grey': this server takes no new ones (--labels closed), only red, green, blue" in refused.reason


def test_beyond_its_quota_a_caller_is_told_so(store: ModelStore) -> None:
    with LiveServer(store, labels_per_hour=2) as live:
        answers = list(live.client.add_examples([(image, "grey") for image in GREY[:4]]))

    assert Counter(answer.outcome for answer in answers) == {ACCEPTED: 2, REJECTED: 2}
    for answer in answers:
        assert (answer.outcome == REJECTED) == (3500 < answer.retry_after_s <= 3600), "when the oldest is an hour old"
        said = f"quota: ipv4:127.0.0.1 set 2 labels within an hour; the next one fits in {answer.retry_after_s:.0f} s"
        assert answer.reason == (said if answer.outcome == REJECTED else "")


def test_a_client_that_leaves_half_way_has_what_it_was_promised(store: ModelStore, live: LiveServer) -> None:
    answers = live.client.add_examples((picture("grey", number), "grey") for number in range(200))
    promised = [next(answers).sha256 for _ in range(5)]
    answers.close()  # type: ignore[attr-defined]  # it is a generator
    live.client.classify(GREY[0])

    examples = ExamplesStore(store.root / ".examples")
    kept = {example.sha256 for example in examples.labels.in_force("colours")}
    assert {*promised} <= kept
    assert all(image_hash(examples.image_file(sha256).read_bytes()) == sha256 for sha256 in kept)
    examples.close()
    (again,) = live.client.add_examples([(GREY[0], "grey")])
    assert again.outcome == DUPLICATE


def test_when_the_database_goes_away_labels_are_refused_and_serving_goes_on(
    store: ModelStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        PostgreSQL.shared(tmp_path_factory.mktemp("cluster")) as cluster,
        LiveServer(store, database=cluster.new_database()) as live,
    ):
        list(live.client.add_examples([(GREY[0], "grey")]))
        cluster.stop()

        with pytest.raises(RemoteError, match="cannot keep the examples") as failure:
            list(live.client.add_examples([(GREY[1], "grey")]))
        assert failure.value.code == "UNAVAILABLE"
        assert live.client.classify(GREY[1]).predictions

        cluster.start()
        (again,) = live.client.add_examples([(GREY[1], "grey")])
        assert again.outcome == ACCEPTED
        assert live.client.get_model().examples == 2


def test_a_picture_that_is_too_large_is_rejected(store: ModelStore) -> None:
    with LiveServer(store, max_image_bytes=2048) as live:
        large, small = live.client.add_examples([(picture("red", 0, side_px=64), "red"), (GREY[0], "grey")])

    assert (large.outcome, small.outcome) == (REJECTED, ACCEPTED)
    assert large.reason == "the image has 11,025 bytes; the limit is 2,048"


def test_an_example_that_was_accepted_is_on_the_disk(store: ModelStore, client: Client) -> None:
    """Invariant 6."""
    (answer,) = client.add_examples([(GREY[0], "grey")])

    examples = ExamplesStore(store.root / ".examples")
    assert [(example.sha256, example.label) for example in examples.labels.in_force("colours")] == [
        (answer.sha256, "grey")
    ]
    assert examples.image_file(answer.sha256).read_bytes() == GREY[0]
    examples.close()


def test_examples_are_answered_while_more_are_still_to_come(client: Client) -> None:
    answered: list[str] = []

    def examples() -> Iterator[tuple[bytes, str]]:
        for number, image in enumerate(GREY[:3]):
            wait_until(partial(answered_are, number))
            yield image, "grey"

    def answered_are(number: int) -> bool:
        return len(answered) == number

    for answer in client.add_examples(examples()):
        answered.append(answer.sha256)  # noqa: PERF401 - the generator above looks at it meanwhile
    assert answered == [image_hash(image) for image in GREY[:3]]


def test_an_example_for_a_model_that_does_not_exist_is_rejected(client: Client) -> None:
    (answer,) = client.add_examples([(GREY[0], "grey")], name="cats")

    assert answer.outcome == REJECTED
    assert "cats" in answer.reason


def test_with_two_models_the_name_has_to_be_given(store: ModelStore) -> None:
    publish_tiny(store, name="animals")
    with LiveServer(store) as live:
        (answer,) = live.client.add_examples([(GREY[0], "grey")])
        assert answer.outcome == REJECTED
        assert "animals, colours" in answer.reason

        (answer,) = live.client.add_examples([(GREY[0], "grey")], name="animals")
        assert answer.outcome == ACCEPTED
        assert [(model.name, model.examples) for model in live.client.list_models()] == [("animals", 1), ("colours", 0)]


def test_a_source_that_is_too_long_is_rejected(client: Client) -> None:
    (answer,) = client.add_examples([(GREY[0], "grey")], source="x" * 201)

    assert answer.outcome == REJECTED
    assert "source" in answer.reason


def test_without_a_model_no_example_can_be_taken(empty_store: ModelStore) -> None:
    with LiveServer(empty_store) as live, pytest.raises(RemoteError, match="train one") as failure:
        list(live.client.add_examples([(GREY[0], "grey")]))

    assert failure.value.code == "FAILED_PRECONDITION"


@pytest.fixture
def disk_that_refuses(store: ModelStore) -> bytes:
    """A picture that cannot be kept, for a file is where its folder should be; GREY[0] can."""
    refused = next(image for image in GREY if image_hash(image)[:2] != image_hash(GREY[0])[:2])
    images = store.root / ".examples" / "images"
    images.mkdir(parents=True)
    (images / image_hash(refused)[:2]).write_text("in the way")
    return refused


def test_a_disk_that_refuses_ends_the_call_but_what_was_acknowledged_is_kept(
    store: ModelStore, disk_that_refuses: bytes
) -> None:
    """Invariant 6."""
    acknowledged = []
    with LiveServer(store) as live:
        sent = [(GREY[0], "grey"), (disk_that_refuses, "grey"), (GREY[1], "grey")]
        with pytest.raises(RemoteError, match="cannot keep the image") as failure:  # noqa: PT012 - of the loop
            for answer in live.client.add_examples(sent):
                acknowledged.append(answer.sha256)  # noqa: PERF401 - what came before the error is kept

        assert failure.value.code == "UNAVAILABLE"
        assert acknowledged == [image_hash(GREY[0])]
        assert live.client.get_model().examples in {1, 2}  # the last may be kept, though nobody was told
        assert live.client.classify(picture("red")).version == 1
    assert (store.root / ".examples" / "images" / acknowledged[0][:2] / acknowledged[0]).read_bytes() == GREY[0]


def test_a_disk_that_refuses_is_not_reported_as_a_server_that_does_not_answer(
    store: ModelStore, disk_that_refuses: bytes
) -> None:
    with LiveServer(store) as live, pytest.raises(RemoteError) as failure:
        list(live.client.add_examples([(disk_that_refuses, "grey")]))

    assert "no server answers" not in str(failure.value)


def test_new_examples_are_embedded_in_the_background_and_again_for_a_new_backbone(store: ModelStore) -> None:
    publish_tiny(store, scale=2.0, promote=False)
    examples = ExamplesStore(store.root / ".examples")
    hashes = [image_hash(image) for image in GREY]
    features = tiny_features(tiny_backbone(), ("grey",))
    expected = dict(zip(features.sha256, features.embedding, strict=True))

    def all_embedded(key: EmbeddingKey) -> bool:
        return len(examples.embeddings.get(key, hashes)) == len(hashes)

    with LiveServer(store, reload_every_s=3600) as live:  # nothing but what happens here wakes the embedder
        for version, scale in ((1, 1.0), (2, 2.0)):
            if version == 1:
                list(live.client.add_examples((image, "grey") for image in GREY))
            else:
                live.client.promote(version)
            card = live.server.models.get("colours").card
            key = card.embedding_key
            wait_until(partial(all_embedded, key))

            for sha256, embedding in examples.embeddings.get(key, hashes).items():
                np.testing.assert_allclose(embedding, scale * expected[sha256], atol=1e-5)
    examples.close()


def test_a_new_class_is_learned_while_the_server_runs(live: LiveServer, store: ModelStore) -> None:
    """From labels to a new version that serves: the whole loop, in the real process."""
    client = live.client
    assert client.classify(GREY[0]).predictions[0].label != "grey"
    list(client.add_examples((image, "grey") for image in GREY))

    job = client.retrain(requested_by="ada")
    assert (job.name, job.requested_by, job.state) == ("colours", "ada", pb.RetrainJob.STATE_PENDING)
    fractions = []
    for seen in client.watch_job(job.id):
        fractions.append(seen.fraction)
        if seen.state == pb.RetrainJob.STATE_SUCCEEDED:  # whoever is told of it finds it serving, without waiting
            assert client.classify(GREY[0]).version == seen.version == 2
            assert client.get_model().served_version == 2
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1

    end = client.get_job(job.id)
    assert (end.state, end.champion, end.version) == (pb.RetrainJob.STATE_SUCCEEDED, 1, 2)
    assert end.verdict.blessed
    assert list(end.verdict.reasons) == []
    assert [(entry.label, entry.is_new) for entry in end.verdict.classes] == [
        ("red", False),
        ("green", False),
        ("blue", False),
        ("grey", True),
    ]
    assert end.verdict.challenger_accuracy > end.verdict.champion_accuracy
    model = client.get_model()
    assert list(model.labels) == ["red", "green", "blue", "grey"]
    assert [(entry.event, entry.version, entry.who, entry.job) for entry in model.history[:2]] == [
        ("promote", 2, "ada", job.id),
        ("publish", 2, "ada", job.id),
    ]
    for label in ("red", "green", "blue", "grey"):
        assert client.classify(picture(label, 99)).predictions[0].label == label
    assert live.metric("regraft_retrain_jobs_total", model="colours", outcome="succeeded") == 1
    assert live.metric("regraft_gate_accuracy", head="challenger") == end.verdict.challenger_accuracy
    assert live.metric("regraft_gate_accuracy", head="champion") == end.verdict.champion_accuracy
    assert live.metric("regraft_swaps_total", model="colours", kind="head") == 1
    assert (store.folder("colours", 2) / "report.html").is_file()
    assert [entry.id for entry in client.list_jobs()] == [job.id]


def test_jobs_come_in_pages_that_every_client_takes_newest_first(live: LiveServer, store: ModelStore) -> None:
    """Of a month, say."""
    ids = []
    with closing(ExamplesStore(store.root / ".examples")) as examples:
        for _ in range(7):
            job = examples.jobs.create("colours", {}, "ada")
            examples.jobs.finish(job.id, JobState.REFUSED, "x" * 1_000_000)
            ids.append(job.id)
    with grpc.insecure_channel(live.target) as channel:
        stub = pb_grpc.RetrainingStub(channel)
        pages = [stub.ListRetrainJobs(pb.ListRetrainJobsRequest())]
        while pages[-1].next_page_token:
            pages.append(stub.ListRetrainJobs(pb.ListRetrainJobsRequest(page_token=pages[-1].next_page_token)))
        two = stub.ListRetrainJobs(pb.ListRetrainJobsRequest(page_size=2, name="colours"))

    assert [job.id for page in pages for job in page.jobs] == ids[::-1]
    assert len(pages) == 3
    assert [job.id for job in two.jobs] == ids[:-3:-1]
    assert [job.id for job in live.client.list_jobs()] == ids[::-1]
    assert live.client.list_jobs("others") == []


def test_who_asks_for_a_retrain_has_a_limit(shared: LiveServer) -> None:
    with pytest.raises(RemoteError, match="requested_by: 201 characters") as failure:
        shared.client.retrain(requested_by="x" * 201)

    assert failure.value.code == "INVALID_ARGUMENT"


def test_a_retrain_without_anything_new_is_refused(live: LiveServer) -> None:
    end = end_of(live.client, live.client.retrain())

    assert end.state == pb.RetrainJob.STATE_REFUSED
    assert "nothing new" in end.message
    assert end.version == 0
    assert not end.HasField("verdict")
    assert end.requested_by == "unknown"
    assert live.metric("regraft_retrain_jobs_total", model="colours", outcome="refused") == 1
    assert live.client.get_model().champion == 1


def test_a_new_class_without_holdout_pictures_goes_live_and_the_verdict_says_what_is_not_shown(
    live: LiveServer,
) -> None:
    to_train_on = [image for image in GREY if not is_holdout(image_hash(image))]
    list(live.client.add_examples((image, "grey") for image in to_train_on))

    end = end_of(live.client, live.client.retrain())

    assert end.state == pb.RetrainJob.STATE_SUCCEEDED
    assert any("'grey' is new, and it has no holdout images" in caution for caution in end.verdict.cautions)
    assert live.client.get_model().champion == 2


def test_one_job_a_model_at_a_time_and_it_can_be_cancelled(live: LiveServer, store: ModelStore) -> None:
    publish_tiny(store, name="animals")
    wait_until(lambda: len(live.server.models.names()) == 2)
    client = live.client
    with stalled_retrain(store):
        job = client.retrain(name="colours")
        running(client, job)
        with pytest.raises(RemoteError, match=job.id) as failure:
            client.retrain(name="colours")
        assert failure.value.code == "FAILED_PRECONDITION"

        other = client.retrain(name="animals")  # another model's job is not in its way
        assert client.cancel_job(other.id).state == pb.RetrainJob.STATE_CANCELLED
        assert client.cancel_job(job.id).state == pb.RetrainJob.STATE_RUNNING, "its process is asked to end"
        end = end_of(client, job)

    assert (end.state, end.message) == (pb.RetrainJob.STATE_CANCELLED, "cancelled")
    assert live.metric("regraft_retrain_jobs_total", model="colours", outcome="cancelled") == 1
    with pytest.raises(AssertionError, match="no process"):
        process_of_job(job.id)
    assert client.cancel_job(job.id).state == pb.RetrainJob.STATE_CANCELLED, "once more does no harm"
    assert [entry.id for entry in client.list_jobs()] == [other.id, job.id]
    assert [entry.id for entry in client.list_jobs("colours")] == [job.id]
    assert client.get_model("colours").champion == 1


def test_a_job_whose_process_is_killed_is_started_again_before_the_eyes_of_who_watches(
    live: LiveServer, store: ModelStore
) -> None:
    """Invariant 6."""
    list(live.client.add_examples((image, "grey") for image in GREY))
    with stalled_retrain(store):
        job = live.client.retrain()
        watching = live.client.watch_job(job.id)
        next(seen for seen in watching if seen.phase == "read")
        os.kill(process_of_job(job.id), signal.SIGKILL)
    end = list(watching)[-1]

    assert (end.id, end.state, end.version) == (job.id, pb.RetrainJob.STATE_SUCCEEDED, 2)
    assert end.message.startswith("version 2 is the champion")
    assert "second attempt; the first was interrupted in phase 'read': its process was ended by signal 9" in end.message
    assert live.client.classify(GREY[0]).version == 2
    assert live.metric("regraft_retrain_jobs_total", model="colours") == 1


def test_a_job_whose_process_is_killed_twice_failed_and_the_model_is_free_again(
    live: LiveServer, store: ModelStore
) -> None:
    """Invariant 6."""
    with stalled_retrain(store):
        job = live.client.retrain()
        running(live.client, job)
        os.kill(process_of_job(job.id), signal.SIGKILL)
        wait_until(lambda: "second attempt" in live.client.get_job(job.id).message)
        running(live.client, job)
        os.kill(process_of_job(job.id), signal.SIGKILL)
        end = end_of(live.client, job)

    assert end.state == pb.RetrainJob.STATE_FAILED
    assert end.message.count("its process was ended by signal 9") == 2
    assert live.metric("regraft_retrain_jobs_total", model="colours", outcome="failed") == 1
    assert live.client.get_model().champion == 1
    assert live.client.classify(picture("red")).version == 1
    assert live.client.cancel_job(live.client.retrain().id).state == pb.RetrainJob.STATE_CANCELLED


def test_a_mode_of_the_gate_that_there_is_not_is_refused(shared: LiveServer) -> None:
    with grpc.insecure_channel(shared.target) as channel, pytest.raises(grpc.RpcError) as failure:
        pb_grpc.RetrainingStub(channel).Retrain(pb.RetrainRequest(gate=-1))  # type: ignore[arg-type] # a newer client's

    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "gate: -1 is none of GATE_MODE_AUTO, GATE_MODE_MANUAL, GATE_MODE_OFF" in (failure.value.details() or "")


@pytest.mark.parametrize("field", ["max_drop", "max_suspects"])
@pytest.mark.parametrize("value", [-0.1, 100.1, float("nan"), float("inf")])
def test_a_limit_that_makes_no_sense_is_refused_and_no_job_is_entered(
    shared: LiveServer, field: str, value: float
) -> None:
    with grpc.insecure_channel(shared.target) as channel, pytest.raises(grpc.RpcError) as failure:
        pb_grpc.RetrainingStub(channel).Retrain(pb.RetrainRequest(limits=pb.GateLimits(**{field: value / 100})))

    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"limits.{field}: {value / 100:g} is no share; need 0 to 1" in (failure.value.details() or "")
    with pytest.raises(InvalidRequestError, match=f"{field}: {value} percentage points"):
        shared.client.retrain(**{field: value})  # type: ignore[arg-type]  # mypy cannot see which field it is
    assert shared.client.list_jobs() == []


def test_only_a_model_that_serves_can_be_retrained(shared: LiveServer, empty_store: ModelStore) -> None:
    with pytest.raises(RemoteError) as failure:
        shared.client.retrain(name="cats")
    assert failure.value.code == "NOT_FOUND"

    publish_tiny(empty_store, promote=False)
    with LiveServer(empty_store) as live:
        with pytest.raises(RemoteError, match="no champion") as failure:
            live.client.retrain()
        assert failure.value.code == "FAILED_PRECONDITION"


def test_a_job_that_does_not_exist_is_not_found(shared: LiveServer) -> None:
    for call in (
        shared.client.get_job,
        shared.client.cancel_job,
        lambda job_id: list(shared.client.watch_job(job_id)),
    ):
        with pytest.raises(RemoteError, match="no retrain job 'nothing'") as failure:
            call("nothing")
        assert failure.value.code == "NOT_FOUND"


def test_two_servers_on_one_store_that_retrain_at_once_run_one_job_and_both_serve_its_head(
    store: ModelStore, database: str
) -> None:
    with LiveServer(store, database=database) as one, LiveServer(store, database=database) as two:
        list(one.client.add_examples((image, "grey") for image in GREY))
        with ThreadPoolExecutor(2) as pool:
            asked = list(pool.map(_ask, (one.client, two.client)))

        (job,) = [answer for answer in asked if isinstance(answer, pb.RetrainJob)]
        (refusal,) = [answer for answer in asked if isinstance(answer, RemoteError)]
        assert refusal.code == "FAILED_PRECONDITION"
        assert job.id in str(refusal)
        assert end_of(two.client, job).state == pb.RetrainJob.STATE_SUCCEEDED
        wait_until(lambda: {server.client.get_model().served_version for server in (one, two)} == {2})
        assert store.versions("colours") == [1, 2]


def test_of_two_servers_one_goes_on_with_a_job_that_was_interrupted(store: ModelStore, database: str) -> None:
    with LiveServer(store, database=database) as one, LiveServer(store, database=database) as two:
        list(one.client.add_examples((image, "grey") for image in GREY))
        examples = ExamplesStore(store.root / ".examples", database)
        job = examples.jobs.create("colours", {}, "a server that was killed")
        examples.jobs.claim(job.id)
        examples.close()
        wait_until(lambda: two.client.get_job(job.id).HasField("finished_at"))

        end = two.client.get_job(job.id)
        assert (end.state, end.version) == (pb.RetrainJob.STATE_SUCCEEDED, 2)
        assert "second attempt" in end.message
        assert store.versions("colours") == [1, 2]
        wait_until(lambda: {server.client.get_model().served_version for server in (one, two)} == {2})
        assert [entry.job for entry in store.history("colours") if entry.event == "promote"] == ["", job.id]


def _ask(client: Client) -> pb.RetrainJob | RemoteError:
    try:
        return client.retrain()
    except RemoteError as error:
        return error


def test_asked_twice_with_one_key_it_is_one_job_whichever_server_is_asked(store: ModelStore) -> None:
    with LiveServer(store) as one, LiveServer(store) as two:
        job = one.client.retrain(idempotency_key="release 7")
        end_of(one.client, job)

        assert two.client.retrain(idempotency_key="release 7").id == job.id
        assert len(two.client.list_jobs()) == 1
        with pytest.raises(RemoteError, match="the limit is 128"):
            two.client.retrain(idempotency_key="k" * 129)


def test_a_gate_on_manual_waits_for_promote_and_a_request_may_ask_for_another(store: ModelStore) -> None:
    with LiveServer(store, gate="manual") as server:
        list(server.client.add_examples((image, "grey") for image in GREY))
        waiting = end_of(server.client, server.client.retrain())
        assert waiting.state == pb.RetrainJob.STATE_SUCCEEDED
        assert "version 2 is blessed and waits" in waiting.message
        assert server.client.get_model().served_version == 1

        assert end_of(server.client, server.client.retrain(gate="auto")).state == pb.RetrainJob.STATE_SUCCEEDED
        assert server.client.get_model().served_version == 3
        assert server.client.promote(2).model.served_version == 2


def test_what_the_gate_saw_reaches_the_client(store: ModelStore) -> None:
    with LiveServer(store) as server:
        list(server.client.add_examples(((image, "grey") for image in GREY), source="a phone"))
        verdict = end_of(server.client, server.client.retrain()).verdict

        (phone,) = [part for part in verdict.slices if part.source == "a phone"]
        assert (phone.new_images, phone.suspects) == (len(GREY), 0)
        assert verdict.new_images == len(GREY)
        assert 0 < verdict.p_value <= 1
        assert 0 < verdict.loss_p_value <= 1
        assert verdict.loss_bound == 0  # it gains so much that no loss is left
        (first,) = [part for part in verdict.slices if part.source == "first training data"]
        assert 0 < first.loss_bound < 1
        (blue,) = [entry for entry in verdict.classes if entry.label == "blue"]
        assert 0 < blue.loss_bound < 1
        assert any("cannot be excluded" in caution for caution in verdict.cautions)


def test_a_retrain_whose_database_goes_away_begins_anew_when_it_is_back_and_serving_goes_on(
    store: ModelStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        PostgreSQL.shared(tmp_path_factory.mktemp("cluster")) as cluster,
        LiveServer(store, database=cluster.new_database()) as live,
    ):
        list(live.client.add_examples((image, "grey") for image in GREY))
        with stalled_retrain(store):
            job = live.client.retrain()
            with reading_the_pipe(store):
                child = process_of_job(job.id)
                cluster.stop()  # what it reads is no features, and it cannot say so
        wait_until(lambda: not Path(f"/proc/{child}").exists())
        assert live.client.classify(GREY[1]).predictions
        assert store.versions("colours") == [1]

        cluster.start()
        end = end_of(live.client, job)
        assert end.state == pb.RetrainJob.STATE_SUCCEEDED
        assert "second attempt" in end.message
        assert live.client.get_model().served_version == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"strategy": "magic"}, "strategy: 'magic'; there is: probe, finetune, scratch, auto"),
        ({"precision": "int4"}, "precision: 'int4'; there is: fp32, int8, auto"),
        ({"epochs": 0, "strategy": "auto"}, "epochs: 0; 1 to 1000"),
        ({"epochs": 1001, "strategy": "auto"}, "epochs: 1001; 1 to 1000"),
        ({"epochs": 5}, "epochs: a probe has none"),
        ({"backbone": "x" * 201}, "backbone: 201 characters"),
        ({"requested_by": "x" * 201}, "requested_by: 201 characters"),
        ({"idempotency_key": "x" * 129}, "idempotency_key: the limit is 128"),
    ],
)
def test_a_training_that_makes_no_sense_is_refused_by_its_field(
    shared_trainable: LiveServer, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RemoteError, match=complaint) as failure:
        shared_trainable.client.train(**options)

    assert failure.value.code == "INVALID_ARGUMENT"
    assert shared_trainable.client.list_jobs() == []


@pytest.fixture(scope="module")
def shared_trainable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose model's pictures are all among the examples.

    For tests that change nothing.
    """
    store = ModelStore(tmp_path_factory.mktemp("trainable") / "store")
    publish_tiny(store)
    keep_pictures(store)
    with LiveServer(store) as server:
        yield server


def keep_pictures(store: ModelStore) -> None:
    """Keep rows of the champion's pictures, as a training run does."""
    with np.load(store.folder("colours", 1) / "features.npz") as features:
        hashes = [str(sha256) for sha256 in features["sha256"]]
    nothing = np.zeros(1, np.float32)
    pictures = [OriginalPicture(sha256, store.root, "red", is_holdout=False, embedding=nothing) for sha256 in hashes]
    with closing(ExamplesStore(store.root / ".examples")) as examples:
        examples.originals.record("colours", pictures, "ada", is_live=True)


def test_a_training_without_the_pictures_of_the_champion_says_who_brings_them(live: LiveServer) -> None:
    with pytest.raises(RemoteError, match="regraft refresh DATA --name colours") as failure:
        live.client.train()

    assert failure.value.code == "FAILED_PRECONDITION"
    assert live.client.list_jobs() == []
    assert live.client.get_model().examples == 0


def test_a_watcher_hears_each_point_of_the_curve_once(live: LiveServer, store: ModelStore) -> None:
    points = [LearningPoint(number, 3, number or None, 0.5, 0.9) for number in range(4)]
    with closing(ExamplesStore(store.root / ".examples")) as examples, job_lock(examples, "colours"):
        job = examples.jobs.create("colours", {}, "ada", kind=JobKind.TRAIN)
        examples.jobs.claim(job.id)
        for point in points[:2]:
            examples.jobs.add_point(job.id, point)
        with grpc.insecure_channel(live.target) as channel:
            answers = pb_grpc.RetrainingStub(channel).WatchRetrainJob(pb.WatchRetrainJobRequest(id=job.id))
            heard = [next(answers)]
            examples.jobs.add_point(job.id, points[2])
            heard.append(next(answers))
            examples.jobs.add_point(job.id, points[1])
            heard.append(next(answers))
            examples.jobs.finish(job.id, JobState.FAILED, "over")
            heard.extend(answers)

    assert [[point.epoch for point in answer.points] for answer in heard] == [[0, 1], [2], [], []]
    assert {answer.job.kind for answer in heard} == {pb.RetrainJob.KIND_TRAIN}
    assert not heard[0].points[0].HasField("loss")
    (watched,) = live.client.watch_job(job.id)
    assert [point.epoch for point in watched.points] == [0, 1]
    assert watched == live.client.get_job(job.id)
    assert [list(listed.points) for listed in live.client.list_jobs()] == [[]]


def test_a_model_without_a_version_is_looked_at_before_its_first_retrain(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    begin_tiny(store, "colours", ("red", "blue"))
    with LiveServer(store) as live, closing(ExamplesStore(store.root / ".examples")) as examples:
        with pytest.raises(RemoteError, match="2 classes with 2 pictures each; there are 0 and 0") as caught:
            live.client.preview()
        assert caught.value.code == "FAILED_PRECONDITION"
        [*live.client.add_examples((picture(label, n), label) for label in ("red", "blue") for n in range(25))]
        wait_until(lambda: not examples.labels.without_embedding("colours", COLOUR_KEY, 1))

        seen = live.client.preview()

        assert (seen.name, seen.champion, seen.not_embedded) == ("colours", 0, 0)
        assert seen.train_images + seen.holdout_images == seen.learning_curve.labels == 50
        assert [entry.label for entry in seen.classes] == ["red", "blue"]
        assert live.client.list_jobs() == []
