import json
import math
import shutil
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from regraft.client import Client, RemoteError
from regraft.store import ModelStore
from regraft.v1 import models_pb2 as pb
from regraft.v1 import models_pb2_grpc as pb_grpc
from tests.serving.cuda import CUDA_WORKS
from tests.serving.live import LiveServer
from tests.serving.spoil import SPOIL
from tests.serving.waiting import wait_until
from tests.tiny import picture, publish_tiny


def fails_with(call: Callable[[], object]) -> RemoteError:
    with pytest.raises(RemoteError) as failure:
        call()
    return failure.value


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

    model = client.promote(2, who="ada", why="it knows grey")

    assert (model.served_version, model.champion, list(model.versions)) == (2, 2, [1, 2])
    assert list(model.labels) == ["blue", "grey", "red"]
    assert client.classify(picture("grey")).predictions[0].label == "grey"
    latest = model.history[0]
    assert (latest.event, latest.version, latest.previous) == ("promote", 2, 1)
    assert (latest.who, latest.why) == ("ada", "it knows grey")


def test_a_promotion_by_nobody_is_by_unknown(store: ModelStore, client: Client) -> None:
    publish_tiny(store, promote=False)

    assert client.promote(2).history[0].who == "unknown"


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

    model = client.rollback(who="ada", why="grey was wrong")

    assert (model.served_version, model.champion) == (1, 1)
    assert (model.history[0].event, model.history[0].who, model.history[0].why) == ("rollback", "ada", "grey was wrong")
    assert client.classify(picture("red")).version == 1


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
    store.promote("colours", version, who="test", why="")

    wait_until(lambda: live.client.get_model().problem)
    model = live.client.get_model()
    assert reason in model.problem
    assert (model.champion, model.served_version) == (version, 1)
    assert live.metric("regraft_load_failures_total", model="colours") == 1
    assert live.client.classify(picture("red")).version == 1


def test_the_history_is_cut_to_its_newest_50(store: ModelStore, client: Client) -> None:
    for number in range(60):
        store.promote("colours", 1, who=f"number {number}", why="")

    history = client.get_model().history
    assert [entry.who for entry in history] == [f"number {number}" for number in range(59, 9, -1)]


def test_examples_are_counted(client: Client) -> None:
    list(client.add_examples([(picture("grey", number), "grey") for number in range(3)]))

    assert client.get_model().examples == 3


@pytest.mark.skipif(CUDA_WORKS, reason="CUDA works on this machine, so it is not refused")
def test_a_server_told_to_use_cuda_says_why_it_serves_nothing(store: ModelStore) -> None:
    with LiveServer(store, provider="cuda") as live:
        model = live.client.get_model()
        assert (model.served_version, model.champion, model.provider) == (0, 1, "")
        assert "provider cuda was asked for, but" in model.problem

        failure = fails_with(lambda: live.client.classify(picture("red")))
        assert failure.code == "FAILED_PRECONDITION"
        assert "provider cuda was asked for, but" in str(failure)
        assert live.metric("regraft_load_failures_total", model="colours") == 1


@pytest.mark.skipif(CUDA_WORKS, reason="CUDA works on this machine, so nothing falls back")
def test_a_server_that_falls_back_to_the_cpu_says_so(store: ModelStore) -> None:
    with LiveServer(store, provider="auto") as live:
        model = live.client.get_model()

        assert (model.provider, model.served_version) == ("cpu", 1)
        assert model.fallback_reason
        assert live.metric("regraft_provider", model="colours", provider="cpu") == 1
        assert live.metric("regraft_provider", model="colours", provider="cuda") == 0
