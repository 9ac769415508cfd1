"""A caller whose line names models knows no others, whatever it asks."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from regraft.auth import hash_token
from regraft.client.client import Client, RemoteError
from regraft.client.connection import Connection
from regraft.oip import inference_pb2, inference_pb2_grpc
from regraft.stores.backbones import BackboneStore
from regraft.stores.examples import ExamplesStore
from regraft.stores.models import ModelStore
from serving.rpc.security.named_models import INNER, NAMES
from tests.live_server import LiveServer
from tests.regraft.stores.test_backbones import add
from tests.serving.conftest import AuditLines
from tests.serving.rpc.rpcs import outcome_of, rpcs_of
from tests.tiny import picture, publish_tiny
from tests.waiting import PATIENCE_S, wait_until

TOKEN = "flowers-alone"  # noqa: S105 - a test's own
METADATA = (("authorization", f"Bearer {TOKEN}"),)
OF_NO_MODEL = {
    "/inference.GRPCInferenceService/RepositoryIndex": "a list, of those that the caller may name",
    "/inference.GRPCInferenceService/ServerLive": "of the server",
    "/inference.GRPCInferenceService/ServerMetadata": "of the server",
    "/inference.GRPCInferenceService/ServerReady": "of the server",
    "/regraft.v1.Models/ListBackbones": "a list, without those that learned in a model which the caller may not name",
    "/regraft.v1.Models/ListModels": "a list, of those that the caller may name",
    "/regraft.v1.Retraining/CancelRetrainJob": "a job's id, whose model is checked",
    "/regraft.v1.Retraining/GetRetrainJob": "a job's id, whose model is checked",
    "/regraft.v1.Retraining/WatchRetrainJob": "a job's id, whose model is checked",
}
"""RPCs whose request names no model, and why they show none of another's."""


@pytest.fixture
def live(store: ModelStore, tmp_path: Path) -> Iterator[LiveServer]:
    """A server of two models; the tenant's line names one of them."""
    publish_tiny(store, ("red", "green"), name="flowers")
    callers = tmp_path / "callers"
    callers.write_text(f"tenant operate sha256:{hash_token(TOKEN)} models=flowers*,cats")
    with LiveServer(store, callers=callers) as server:
        yield server


@pytest.fixture
def tenant(live: LiveServer) -> Iterator[Client]:
    with Client(Connection(live.target, token=TOKEN), timeout_s=PATIENCE_S) as client:
        yield client


def naming(kind: Any, name: str) -> list[Message]:  # noqa: ANN401 - a descriptor, of which protobuf has two classes
    """Return requests of a kind, each naming the model in another place."""
    request = message_factory.GetMessageClass(kind)
    found: list[Message] = [request(**{field: name}) for field in NAMES if field in kind.fields_by_name]
    for field in INNER:
        if inner := field in kind.fields_by_name and kind.fields_by_name[field].message_type:
            is_many = kind.fields_by_name[field].is_repeated
            found += [request(**{field: [each] if is_many else each}) for each in naming(inner, name)]
    return found


def test_no_rpc_lets_a_caller_name_a_model_that_is_not_its_own_whether_it_is_there_or_not(live: LiveServer) -> None:
    """Every RPC that reflection shows.

    Add one whose request names no model to ``OF_NO_MODEL``, with the reason why that is safe.
    """
    unnamed = set()
    with grpc.insecure_channel(live.target) as channel:
        for rpc, method in rpcs_of(channel).items():
            kind = descriptor_pool.Default().FindMessageTypeByName(method.input_type.removeprefix("."))
            requests = [each for name in ("colours", "nobody") for each in naming(kind, name)]
            if not requests:
                unnamed.add(rpc)
            for request in requests:
                outcome = outcome_of(channel, rpc, TOKEN, request.SerializeToString())
                assert outcome is grpc.StatusCode.PERMISSION_DENIED, (rpc, request)

    assert unnamed <= OF_NO_MODEL.keys(), unnamed - OF_NO_MODEL.keys()


def test_lists_show_what_the_caller_may_name(store: ModelStore, live: LiveServer, tenant: Client) -> None:
    with closing(ExamplesStore(store.root / ".examples")) as examples:
        for name in ("colours", "flowers"):
            examples.jobs.request_cancel(examples.jobs.create(name, {}, "ada").id)

    for scale, name in enumerate(("resnet18", "colours:1", "flowers:2", "colours:1-int8"), start=2):
        add(BackboneStore(store.root), name, scale)

    assert [model.name for model in tenant.list_models()] == ["flowers"]
    assert [backbone.name for backbone in tenant.list_backbones()] == ["flowers:2", "resnet18"]
    with pytest.raises(RemoteError, match=r"it has: flowers:2, resnet18\)"):
        tenant.create_model("flowers-begun", "colours:1")
    assert [job.name for job in tenant.list_jobs()] == [job.name for job in tenant.list_jobs("flowers")] == ["flowers"]
    with grpc.insecure_channel(live.target) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        index = stub.RepositoryIndex(inference_pb2.RepositoryIndexRequest(), metadata=METADATA)
        counted = stub.ModelStatistics(inference_pb2.ModelStatisticsRequest(), metadata=METADATA)
    assert [model.name for model in index.models] == [model.name for model in counted.model_stats] == ["flowers"]


def test_who_may_name_one_model_need_not_name_it(tenant: Client) -> None:
    assert tenant.classify(picture("red")).name == "flowers"
    assert tenant.get_model().name == "flowers"


def test_the_text_of_an_error_names_no_model_of_others(tenant: Client) -> None:
    calls: list[Callable[[], object]] = [
        lambda: tenant.get_model("cats"),
        lambda: tenant.classify(picture("red"), name="flowers2"),
        lambda: tenant.get_model("colours"),
    ]
    codes = []
    for call in calls:
        with pytest.raises(RemoteError) as failure:
            call()
        codes.append(failure.value.code)
        assert "colours" not in str(failure.value) or failure.value.code == "PERMISSION_DENIED"

    assert codes == ["NOT_FOUND", "NOT_FOUND", "PERMISSION_DENIED"]


def test_a_job_of_anothers_model_can_neither_be_seen_nor_cancelled(store: ModelStore, tenant: Client) -> None:
    with closing(ExamplesStore(store.root / ".examples")) as examples:
        job = examples.jobs.create("colours", {}, "ada")
        calls: list[Callable[[], object]] = [
            lambda: tenant.get_job(job.id),
            lambda: list(tenant.watch_job(job.id)),
            lambda: tenant.cancel_job(job.id),
        ]
        for call in calls:
            with pytest.raises(RemoteError, match="tenant may not name the model 'colours', only flowers") as failure:
                call()
            assert failure.value.code == "PERMISSION_DENIED"
        assert not examples.jobs.get(job.id).cancel_requested


def test_a_try_at_anothers_model_is_in_the_audit_with_its_name_and_no_picture(
    tenant: Client, audit_lines: AuditLines
) -> None:
    with pytest.raises(RemoteError):
        list(tenant.add_examples([(picture("red"), "red")], name="colours"))

    wait_until(audit_lines)
    [line] = audit_lines()
    assert (line["who"], line["outcome"], line["request"]) == ("tenant", "PERMISSION_DENIED", {"name": "colours"})
