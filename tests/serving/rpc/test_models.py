import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from regraft.client.client import Client, RemoteError
from regraft.files import locked
from regraft.stores.models import ModelStore
from regraft.v1 import models_pb2 as pb
from regraft.v1 import models_pb2_grpc as pb_grpc
from tests.live_server import LiveServer
from tests.postgresql import PostgreSQL
from tests.serving.broken_versions import SPOIL
from tests.serving.conftest import AuditLines
from tests.serving.cuda import CUDA_WORKS
from tests.serving.refusals import fails_with
from tests.serving.rpc.retries import retrying
from tests.tiny import picture, publish_tiny
from tests.waiting import wait_until


def test_a_model_is_described(shared: LiveServer) -> None:
    model = shared.client.get_model("colours")

    assert (model.name, model.served_version, model.champion, list(model.versions)) == ("colours", 1, 1, [1])
    assert list(model.labels) == ["red", "green", "blue"]
    assert (model.provider, model.fallback_reason, model.problem) == ("cpu", "", "")
    assert json.loads(model.card_json)["embedding_size"] == 12
    assert model.examples == 0
    assert [(entry.event, entry.version, entry.who) for entry in model.history] == [
        ("promote", 1, "test"),
        ("publish", 1, "test"),
    ]


def test_a_history_that_a_newer_regraft_wrote_holds_up_that_model_alone_and_says_to_upgrade(store: ModelStore) -> None:
    publish_tiny(store, name="birds")
    with LiveServer(store) as live:
        history = store.root / "birds/history.jsonl"
        with history.open("a") as file:
            file.write(json.dumps({"event": "retire", "version": 1}) + "\n")
        publish_tiny(store, sharpness=5.0)

        wait_until(lambda: "upgrade it" in live.client.get_model("birds").problem)
        wait_until(lambda: live.client.get_model("colours").served_version == 2)
        assert [model.name for model in live.client.list_models()] == ["birds", "colours"]
        assert live.client.classify(picture("red"), name="birds").version == 1, "what serves goes on"
        assert fails_with(lambda: live.client.promote(1, name="birds")).code == "FAILED_PRECONDITION"


def test_the_only_model_needs_no_name(shared: LiveServer) -> None:
    assert shared.client.get_model().name == "colours"


def test_all_models_are_listed_served_or_not(store: ModelStore) -> None:
    publish_tiny(store, name="animals", promote=False)
    publish_tiny(store, name="birds")
    SPOIL["rubbish"][0](store.folder("birds", 1))
    with LiveServer(store) as live:
        models = live.client.list_models()

    assert [(model.name, model.served_version, model.champion) for model in models] == [
        ("animals", 0, 0),
        ("birds", 0, 1),
        ("colours", 1, 1),
    ]
    assert [bool(model.problem) for model in models] == [False, True, False]
    assert models[0].provider == models[1].provider == models[1].card_json == ""


@pytest.mark.parametrize("method", ["Promote", "Rollback", "Shadow"])
def test_who_and_why_have_limits(shared: LiveServer, method: str) -> None:
    kinds: dict[str, Any] = {"Promote": pb.PromoteRequest, "Rollback": pb.RollbackRequest, "Shadow": pb.ShadowRequest}
    with grpc.insecure_channel(shared.target) as channel:
        call = getattr(pb_grpc.ModelsStub(channel), method)
        for fields, text in (({"who": "x" * 201}, "who: 201"), ({"why": "x" * 1_001}, "why: 1001")):
            with pytest.raises(grpc.RpcError) as failure:
                call(kinds[method](name="colours", **fields))
            assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert text in str(failure.value.details())


def test_models_come_in_pages_by_name(store: ModelStore) -> None:
    publish_tiny(store, name="animals")
    publish_tiny(store, name="birds")
    with LiveServer(store) as live, grpc.insecure_channel(live.target) as channel:
        models = pb_grpc.ModelsStub(channel)
        first = models.ListModels(pb.ListModelsRequest(page_size=2))
        second = models.ListModels(pb.ListModelsRequest(page_size=5, page_token=first.next_page_token))
        assert [model.name for model in live.client.list_models()] == ["animals", "birds", "colours"]

    assert [[model.name for model in page.models] for page in (first, second)] == [["animals", "birds"], ["colours"]]
    assert second.next_page_token == ""


def test_a_shadow_that_goes_by_another_state_of_the_model_is_refused(store: ModelStore, client: Client) -> None:
    seen = client.get_model().etag
    publish_tiny(store, promote=False)

    failure = fails_with(lambda: client.shadow(2, etag=seen))

    assert failure.code == "FAILED_PRECONDITION"
    assert "etag: model 'colours' has changed since" in str(failure)
    shadowed = client.shadow(2, etag=client.get_model().etag).model
    assert (shadowed.shadow.version, shadowed.etag) == (2, client.get_model().etag)


def test_an_empty_store_has_no_models(empty_store: ModelStore) -> None:
    with LiveServer(empty_store) as live:
        assert live.client.list_models() == []
        assert fails_with(live.client.get_model).code == "FAILED_PRECONDITION"


def test_an_unknown_model_is_not_found(shared: LiveServer) -> None:
    for call in (
        lambda: shared.client.get_model("cats"),
        lambda: shared.client.promote(1, name="cats"),
        lambda: shared.client.rollback(name="cats"),
    ):
        failure = fails_with(call)
        assert failure.code == "NOT_FOUND"
        assert "colours" in str(failure)


def test_with_two_models_the_name_has_to_be_given(store: ModelStore) -> None:
    publish_tiny(store, name="animals")
    with LiveServer(store) as live:
        for call in (live.client.get_model, live.client.rollback, lambda: live.client.promote(1)):
            failure = fails_with(call)
            assert failure.code == "INVALID_ARGUMENT"
            assert "animals, colours" in str(failure)


def test_a_promotion_serves_when_it_returns_and_says_who_and_why(store: ModelStore, client: Client) -> None:
    publish_tiny(store, ("blue", "grey", "red"), promote=False)

    model = client.promote(2, who="ada", why="it knows grey").model

    assert (model.served_version, model.champion, list(model.versions)) == (2, 2, [1, 2])
    assert list(model.labels) == ["blue", "grey", "red"]
    assert client.classify(picture("grey")).predictions[0].label == "grey"
    latest = model.history[0]
    assert (latest.event, latest.version, latest.previous) == ("promote", 2, 1)
    assert (latest.who, latest.why) == ("ada", "it knows grey")


def test_a_promotion_by_nobody_is_by_unknown(store: ModelStore, client: Client) -> None:
    publish_tiny(store, promote=False)

    assert client.promote(2).model.history[0].who == "unknown"


def test_an_unknown_version_is_not_found_and_nothing_changes(store: ModelStore, client: Client) -> None:
    failure = fails_with(lambda: client.promote(7))

    assert failure.code == "NOT_FOUND"
    assert "it has: 1" in str(failure)
    assert store.champion("colours") == client.get_model().served_version == 1


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_that_cannot_be_is_refused(shared: LiveServer, version: int) -> None:
    failure = fails_with(lambda: shared.client.promote(version))

    assert failure.code == "INVALID_ARGUMENT"
    assert "version" in str(failure)


@pytest.mark.parametrize("what", ["cut short", "half a folder", "a card of another model", "a card of a newer schema"])
def test_a_version_that_cannot_be_loaded_is_not_promoted(store: ModelStore, client: Client, what: str) -> None:
    """Invariant 2."""
    spoil, reason = SPOIL[what]
    spoil(store.folder("colours", publish_tiny(store, promote=False)))

    failure = fails_with(lambda: client.promote(2))

    assert failure.code == "FAILED_PRECONDITION"
    assert reason in str(failure)
    assert store.champion("colours") == 1
    assert client.classify(picture("red")).version == 1


def test_a_version_that_answers_nonsense_is_not_promoted(store: ModelStore, client: Client) -> None:
    """Invariant 2."""
    publish_tiny(store, scale=math.nan, promote=False)

    failure = fails_with(lambda: client.promote(2))

    assert failure.code == "FAILED_PRECONDITION"
    assert "nonsense" in str(failure)
    assert store.champion("colours") == client.get_model().served_version == 1


def test_a_rollback_serves_the_champion_before_when_it_returns(store: ModelStore, client: Client) -> None:
    publish_tiny(store, ("blue", "grey", "red"), promote=False)
    client.promote(2)

    model = client.rollback(who="ada", why="grey was wrong").model

    assert (model.served_version, model.champion) == (1, 1)
    assert (model.history[0].event, model.history[0].who, model.history[0].why) == ("rollback", "ada", "grey was wrong")
    assert client.classify(picture("red")).version == 1


@pytest.fixture
def three(store: ModelStore) -> ModelStore:
    """The store with three champions after each other."""
    for sharpness in (15.0, 10.0):
        publish_tiny(store, sharpness=sharpness)
    return store


def test_who_goes_by_another_champion_is_told_which_it_is_and_nothing_changes(three: ModelStore) -> None:
    with LiveServer(three) as live:
        calls: list[Callable[[], object]] = [
            lambda: live.client.promote(1, expected=2),
            lambda: live.client.rollback(expected=2),
            lambda: live.client.promote(1, expected=0),
        ]
        for call in calls:
            failure = fails_with(call)
            assert failure.code == "FAILED_PRECONDITION"
            assert "the champion of 'colours' is now version 3, not" in str(failure)
        assert three.champion("colours") == 3
        assert live.client.rollback(expected=3).model.champion == 2


def test_of_two_rollbacks_at_once_one_goes_back_and_the_other_is_told_what_is_champion_now(three: ModelStore) -> None:
    with LiveServer(three) as first, LiveServer(three) as second, ThreadPoolExecutor() as threads:
        with locked(three.root / "colours" / ".lock"):
            calls = [threads.submit(each.client.rollback, expected=3) for each in (first, second)]
        answers = [call.exception() or call.result() for call in calls]

    errors = [answer for answer in answers if isinstance(answer, RemoteError)]
    assert [error.code for error in errors] == ["FAILED_PRECONDITION"]
    assert "is now version 2, not 3: look again" in str(errors[0])
    assert three.champion("colours") == 2


def test_a_request_that_comes_again_after_a_restart_or_elsewhere_goes_back_no_further(three: ModelStore) -> None:
    with LiveServer(three) as live:
        first = live.client.rollback(request_id="6f1c", who="ada")
        again = live.client.rollback(request_id="6f1c", who="ada")
    with LiveServer(three) as restarted, LiveServer(three) as another:
        answers = [each.client.rollback(request_id="6f1c", who="ada") for each in (restarted, another)]

    assert (first.effect.event, first.effect.version, first.effect.previous) == ("rollback", 2, 3)
    assert (first.effect.who, first.effect.request_id, first.effect.job) == ("ada", "6f1c", "")
    for answer in (again, *answers):
        assert answer.effect == first.effect
        assert (answer.model.champion, answer.model.served_version) == (2, 2)


def test_what_a_request_did_is_told_apart_from_what_others_did_since(three: ModelStore) -> None:
    with LiveServer(three) as live:
        live.client.promote(1, request_id="6f1c")
        live.client.promote(3)

        again = live.client.promote(1, request_id="6f1c")

        assert (again.effect.version, again.model.champion, again.model.served_version) == (1, 3, 3)


def test_every_move_of_a_client_has_an_id_of_its_own(three: ModelStore) -> None:
    with LiveServer(three) as live:
        live.client.promote(1)
        live.client.promote(2)
        latest = live.client.rollback().model.history[:3]

    assert all(entry.request_id for entry in latest)
    assert len({entry.request_id for entry in latest}) == 3


@pytest.mark.parametrize("method", ["Promote", "Rollback"])
def test_what_cannot_be_a_request_id_or_a_champion_is_refused(shared: LiveServer, method: str) -> None:
    kinds: dict[str, Any] = {"Promote": pb.PromoteRequest, "Rollback": pb.RollbackRequest}
    wrong = ({"request_id": "x" * 129}, {"request_id": "a\nb"}, {"expected_champion": -1})
    with grpc.insecure_channel(shared.target) as channel:
        call = getattr(pb_grpc.ModelsStub(channel), method)
        for fields in wrong:
            with pytest.raises(grpc.RpcError) as failure:
                call(kinds[method](name="colours", **fields))
            assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert str(failure.value.details()).startswith(*fields)


def test_a_promotion_whose_deadline_passed_does_not_take_effect_later(three: ModelStore) -> None:
    with LiveServer(three) as live:
        with locked(three.root / "colours" / ".lock"), Client(live.target, timeout_s=0.2) as hasty:
            for call in (lambda: hasty.promote(1), hasty.rollback, lambda: hasty.shadow(1)):
                assert fails_with(call).code == "DEADLINE_EXCEEDED"
        live.client.promote(2)  # waits its turn behind them

    assert [(entry.event, entry.version) for entry in three.history("colours")[6:]] == [("promote", 2)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A PostgreSQL of these tests alone, which may stop it."""
    with PostgreSQL.shared(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def test_without_the_database_models_are_described_and_one_rollback_goes_back_one(
    three: ModelStore, cluster: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    options = retrying("UNAVAILABLE", first_s=0.01, most_s=0.1)
    with LiveServer(three, database=cluster.new_database()) as live:
        assert live.client.get_model().examples == 0
        assert live.client.get_model().HasField("examples")
        cluster.stop()
        with grpc.insecure_channel(live.target, options) as channel:
            models = pb_grpc.ModelsStub(channel)
            went_back = models.Rollback(pb.RollbackRequest())
            promoted = models.Promote(pb.PromoteRequest(version=1))
            shadowed = models.Shadow(pb.ShadowRequest(version=2))
            described = [models.GetModel(pb.GetModelRequest()).model, *models.ListModels(pb.ListModelsRequest()).models]
        cluster.start()

    moves = [(entry.event, entry.version, entry.previous) for entry in three.history("colours")[6:]]
    assert moves == [("rollback", 2, 3), ("promote", 1, 2), ("shadow", 2, 1)]
    assert (went_back.model.champion, went_back.model.served_version, went_back.effect.version) == (2, 2, 2)
    assert (promoted.model.champion, promoted.model.served_version, promoted.effect.version) == (1, 1, 1)
    assert (shadowed.model.shadow.version, shadowed.effect.event) == (2, "shadow")
    for model in (went_back.model, promoted.model, shadowed.model, *described):
        assert not model.HasField("examples"), "unknown is not 0"
    assert "the examples of colours cannot be counted" in caplog.text


def test_where_the_answer_is_too_late_the_audit_tells_whether_the_move_took_effect(
    three: ModelStore, cluster: PostgreSQL, audit_lines: AuditLines
) -> None:
    with LiveServer(three, database=cluster.new_database()) as live, cluster.stopped():
        assert not live.client.get_model().HasField("examples")
        while three.champion("colours") != 2:  # on a busy machine the deadline may come before the effect
            tried = len(audit_lines())
            with Client(live.target, timeout_s=0.7) as hasty:
                assert fails_with(lambda: hasty.promote(2)).code == "DEADLINE_EXCEEDED"  # the database says nothing
            wait_until(lambda: len(audit_lines()) > tried)  # noqa: B023 - it is called within this turn
            assert (audit_lines()[-1]["outcome"] == "OK") == (three.champion("colours") == 2)


class Broken(logging.Handler):
    """A log that can be written no more, as on a full disk."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError(f"no space left for {record.name}")


def test_a_move_whose_audit_line_cannot_be_written_is_answered_as_what_it_is(three: ModelStore) -> None:
    audit = logging.getLogger("regraft.audit")
    broken = Broken()
    audit.addHandler(broken)
    try:
        with LiveServer(three) as live:
            assert live.client.rollback().model.champion == 2
    finally:
        audit.removeHandler(broken)


def test_there_is_nothing_before_the_first_champion(shared: LiveServer) -> None:
    failure = fails_with(shared.client.rollback)

    assert failure.code == "FAILED_PRECONDITION"
    assert "no earlier champion" in str(failure)


def test_a_rollback_to_a_version_that_is_gone_changes_nothing(store: ModelStore, client: Client) -> None:
    """Invariant 2."""
    publish_tiny(store, promote=False)
    client.promote(2)
    shutil.rmtree(store.folder("colours", 1))

    failure = fails_with(client.rollback)

    assert failure.code in ("NOT_FOUND", "FAILED_PRECONDITION")
    assert store.champion("colours") == client.get_model().served_version == 2
    assert client.classify(picture("red")).version == 2


def test_a_store_that_cannot_be_written_is_unavailable_and_nothing_changes(store: ModelStore, client: Client) -> None:
    publish_tiny(store, promote=False)
    lock = store.root / "colours" / ".lock"
    lock.unlink()
    lock.mkdir()  # not even root can open a folder for writing

    failure = fails_with(lambda: client.promote(2))

    assert failure.code == "UNAVAILABLE"
    assert "cannot move the champion" in str(failure)
    assert store.champion("colours") == client.get_model().served_version == 1


def test_a_promotion_by_another_process_is_picked_up(store: ModelStore, client: Client) -> None:
    version = publish_tiny(store, sharpness=5.0)

    wait_until(lambda: client.get_model().served_version == version)
    assert client.classify(picture("red")).version == version


@pytest.mark.parametrize("what", [what for what in SPOIL if what != "no folder"])
def test_a_champion_that_cannot_be_loaded_is_named_and_the_one_before_keeps_serving(
    store: ModelStore, live: LiveServer, what: str
) -> None:
    """Invariant 2."""
    spoil, reason = SPOIL[what]
    version = publish_tiny(store, promote=False)
    spoil(store.folder("colours", version))
    store.move("colours", version, who="test", why="")

    wait_until(lambda: live.metric("regraft_load_failures_total", model="colours") == 1)  # soon it is tried again
    wait_until(lambda: live.client.get_model().problem)
    model = live.client.get_model()
    assert reason in model.problem
    assert (model.champion, model.served_version) == (version, 1)
    assert live.client.classify(picture("red")).version == 1


def test_the_history_is_cut_to_its_newest_50(store: ModelStore, client: Client) -> None:
    for number in range(60):
        store.move("colours", 1, who=f"number {number}", why="")

    history = client.get_model().history
    assert [entry.who for entry in history] == [f"number {number}" for number in range(59, 9, -1)]


def test_examples_are_counted(client: Client) -> None:
    list(client.add_examples([(picture("grey", number), "grey") for number in range(3)]))

    assert client.get_model().examples == 3


@pytest.mark.skipif(CUDA_WORKS, reason="CUDA works on this machine, so it is not refused")
def test_a_server_told_to_use_cuda_says_why_it_serves_nothing(store: ModelStore) -> None:
    with LiveServer(store, provider="cuda") as live:
        assert live.metric("regraft_load_failures_total", model="colours") == 1  # soon it is tried again
        model = live.client.get_model()
        assert (model.served_version, model.champion, model.provider) == (0, 1, "")
        assert "provider cuda was asked for, but" in model.problem

        failure = fails_with(lambda: live.client.classify(picture("red")))
        assert failure.code == "FAILED_PRECONDITION"
        assert "provider cuda was asked for, but" in str(failure)


@pytest.mark.skipif(CUDA_WORKS, reason="CUDA works on this machine, so nothing falls back")
def test_a_server_that_falls_back_to_the_cpu_says_so(store: ModelStore) -> None:
    with LiveServer(store, provider="auto") as live:
        model = live.client.get_model()

        assert (model.provider, model.served_version) == ("cpu", 1)
        assert model.fallback_reason
        assert live.metric("regraft_provider", model="colours", provider="cpu") == 1
        assert live.metric("regraft_provider", model="colours", provider="cuda") == 0
