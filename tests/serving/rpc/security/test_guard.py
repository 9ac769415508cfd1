import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from regraft.auth import hash_token
from regraft.stores.models import ModelStore
from regraft.v1 import models_pb2 as pb
from regraft.v1 import models_pb2_grpc as pb_grpc
from regraft.v1.classifier_pb2 import ClassifyRequest
from regraft.v1.classifier_pb2_grpc import ClassifierStub
from serving.rpc.security.roles import LEAST_ROLE, Role
from tests.live_server import LiveServer
from tests.serving.conftest import AuditLines
from tests.serving.rpc.rpcs import outcome_of, rpcs_of
from tests.tiny import picture, publish_tiny
from tests.waiting import PATIENCE_S, wait_until

Code = grpc.StatusCode


def callers_file(folder: Path) -> Path:
    """Write a file with a caller of each role, whose token is the role's name."""
    path = folder / "callers"
    path.write_text(
        "".join(f"the-{role} {role} sha256:{hash_token(role)}\n" for role in ("classify", "label", "operate"))
    )
    return path


@pytest.fixture
def another_model(store: ModelStore) -> None:
    """A second model.

    With two, a request that names none is refused before it starts a process.
    """
    publish_tiny(store, name="shapes")


@pytest.fixture
def live(store: ModelStore, tmp_path: Path) -> Iterator[LiveServer]:
    """A server that asks who calls."""
    with LiveServer(store, callers=callers_file(tmp_path)) as server:
        yield server


@pytest.fixture
def channel(live: LiveServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(live.target) as opened:
        yield opened


@pytest.mark.usefixtures("another_model")
def test_each_role_reaches_exactly_the_rpcs_of_its_own_and_lower_roles(channel: grpc.Channel) -> None:
    """Every RPC that reflection shows: none is forgotten."""
    rpcs = rpcs_of(channel)
    assert len([rpc for rpc in rpcs if LEAST_ROLE[rpc] > Role.CLASSIFY]) >= 10

    for rpc in rpcs:
        for role in Role:
            outcome = outcome_of(channel, rpc, role.name.lower())
            assert (outcome is Code.PERMISSION_DENIED) == (role < LEAST_ROLE[rpc]), (rpc, role, outcome)
            assert outcome is not Code.UNAUTHENTICATED


@pytest.mark.parametrize("token", ["", "wrong", hash_token("operate")])
def test_whoever_is_not_known_is_unauthenticated_on_every_rpc(channel: grpc.Channel, token: str) -> None:
    for rpc in rpcs_of(channel):
        assert outcome_of(channel, rpc, token) is Code.UNAUTHENTICATED, rpc


def test_a_stranger_is_refused_before_the_message_has_come_on_every_rpc(channel: grpc.Channel) -> None:
    for rpc in rpcs_of(channel):
        opened: Any = channel.stream_stream(rpc)
        never = threading.Event()
        requests = iter(lambda event=never: bytes(event.wait(PATIENCE_S)), None)  # type: ignore[misc]  # mypy cannot infer defaults
        with pytest.raises(grpc.RpcError) as failure:
            list(opened(requests, timeout=PATIENCE_S))
        never.set()

        assert failure.value.code() is Code.UNAUTHENTICATED, rpc


def test_a_stranger_learns_nothing_of_a_full_server(store: ModelStore, tmp_path: Path) -> None:
    with (
        LiveServer(store, callers=callers_file(tmp_path), max_in_flight=1) as live,
        grpc.insecure_channel(live.target) as channel,
        ThreadPoolExecutor(1) as pool,
        live.busy_lanes(),
    ):
        rpc = "/regraft.v1.Classifier/Classify"
        request = ClassifyRequest(image=picture("red"))
        pool.submit(ClassifierStub(channel).Classify, request, metadata=(("authorization", "Bearer classify"),))
        wait_until(lambda: live.metric("regraft_in_flight") == 1)

        assert outcome_of(channel, rpc, "classify") is Code.RESOURCE_EXHAUSTED
        assert outcome_of(channel, rpc, "wrong") is Code.UNAUTHENTICATED


@pytest.mark.parametrize("value", ["operate", "Bearer", "Bearer ", "Basic operate", "Bearer operate "])
def test_what_is_no_bearer_token_is_unauthenticated(channel: grpc.Channel, value: str) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        pb_grpc.ModelsStub(channel).ListModels(pb.ListModelsRequest(), metadata=(("authorization", value),))

    assert failure.value.code() is Code.UNAUTHENTICATED


def test_the_scheme_may_be_written_in_any_case(channel: grpc.Channel) -> None:
    answer = pb_grpc.ModelsStub(channel).ListModels(
        pb.ListModelsRequest(), metadata=(("authorization", "bEaReR operate"),)
    )

    assert [model.name for model in answer.models] == ["colours"]


def test_health_is_open_to_probes_that_have_no_token(channel: grpc.Channel) -> None:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_token_that_is_withdrawn_is_not_known_any_more(live: LiveServer, channel: grpc.Channel) -> None:
    rpc = "/regraft.v1.Models/ListModels"
    assert outcome_of(channel, rpc, "operate") is Code.OK
    assert live.settings.callers
    live.settings.callers.write_text(f"the-shop classify sha256:{hash_token('shop')}")

    wait_until(lambda: outcome_of(channel, rpc, "shop") is Code.PERMISSION_DENIED)  # it may read half a file
    assert outcome_of(channel, rpc, "operate") is Code.UNAUTHENTICATED


@pytest.mark.usefixtures("another_model")
def test_every_control_call_leaves_a_line_and_no_classification_does(
    channel: grpc.Channel, audit_lines: AuditLines
) -> None:
    rpcs = rpcs_of(channel)
    for rpc in rpcs:
        outcome_of(channel, rpc, "label")

    control = [rpc for rpc in rpcs if LEAST_ROLE[rpc] > Role.CLASSIFY]
    wait_until(lambda: len(audit_lines()) >= len(control))
    assert sorted(str(line["rpc"]) for line in audit_lines()) == sorted(control)
    for line in audit_lines():
        assert line["who"] == "the-label"
        assert str(line["from"]).startswith("ipv4:127.0.0.1:")
        assert (line["outcome"] == "PERMISSION_DENIED") == (LEAST_ROLE[str(line["rpc"])] is Role.OPERATE)


def test_a_line_says_what_was_asked_and_what_came_of_it(
    store: ModelStore, channel: grpc.Channel, audit_lines: AuditLines
) -> None:
    version = publish_tiny(store, sharpness=5.0, promote=False)
    request = pb.PromoteRequest(name="colours", version=version, who="somebody else", why='better\n{"who": "nobody"}')
    promoted = pb_grpc.ModelsStub(channel).Promote(request, metadata=(("authorization", "Bearer operate"),))

    [line] = audit_lines()
    assert (line["who"], line["outcome"]) == ("the-operate", "OK")
    assert line["request"] == {
        "name": "colours",
        "version": str(version),
        "who": "somebody else",
        "why": 'better\n{"who": "nobody"}',
    }
    assert len(audit_lines()) == 1
    assert promoted.model.history[0].who == "the-operate", "the history has who it was, not who it says that it was"


def test_a_stranger_leaves_a_line_too(channel: grpc.Channel, audit_lines: AuditLines) -> None:
    with pytest.raises(grpc.RpcError):
        pb_grpc.ModelsStub(channel).Rollback(pb.RollbackRequest(name="colours", why="x" * 10_000))

    [line] = audit_lines()
    assert (line["who"], line["outcome"]) == ("", "UNAUTHENTICATED")
    assert len(json.dumps(line)) < 1_000


@pytest.mark.usefixtures("another_model")
def test_without_a_file_of_callers_everybody_may_do_everything(store: ModelStore) -> None:
    with LiveServer(store) as live, grpc.insecure_channel(live.target) as channel:
        for rpc in rpcs_of(channel):
            assert outcome_of(channel, rpc) not in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
