"""Every RPC, over HTTP as over gRPC: answers, refusals, and lines of the audit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import pytest
from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from regraft.stores.models import ModelStore
from regraft.v1 import examples_pb2, models_pb2, retraining_pb2
from tests.live_server import LiveServer
from tests.serving.conftest import AuditLines
from tests.serving.http.http_client import Reply, enveloped, envelopes_of, fetch
from tests.serving.rpc.rpcs import rpcs_of
from tests.serving.rpc.security.test_guard import callers_file
from tests.tiny import picture, publish_tiny
from tests.waiting import PATIENCE_S

Answer: TypeAlias = tuple[str, str, list[Message]]
"""Code, text and messages of a call."""

_NOBODY: Final = "no/body"
"""No name of anything, and of no use as one."""
_OWN_TO_A_CALL: Final = ("request_id", "timings", "created_at", "finished_at", "added_at", "at", "etag")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with both mouths, which asks who calls."""
    folder = tmp_path_factory.mktemp("mouths")
    store = ModelStore(folder / "store")
    publish_tiny(store)
    publish_tiny(store, name="others")
    with LiveServer(store, http="127.0.0.1:0", callers=callers_file(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def rpcs(live: LiveServer) -> dict[str, descriptor_pb2.MethodDescriptorProto]:
    with grpc.insecure_channel(live.target) as channel:
        return rpcs_of(channel)


def classes_of(rpc: str) -> tuple[Any, Any]:
    """Return the classes of an RPC's requests and responses."""
    method = Default().FindMethodByName(rpc.strip("/").replace("/", "."))
    return message_factory.GetMessageClass(method.input_type), message_factory.GetMessageClass(method.output_type)


def filled(kind: Any) -> Any:  # noqa: ANN401 - any class of messages
    """Return a message whose texts name nobody, so that no job begins."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if field.type == field.TYPE_STRING and not field.is_repeated and field.name not in ("name", "page_token"):
            setattr(message, field.name, _NOBODY)
    return message


def by_grpc(live: LiveServer, rpc: str, request: bytes, token: str) -> Answer:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    answers: list[bytes] = []
    with grpc.insecure_channel(live.target) as channel:
        try:
            opened: Any = channel.stream_stream(rpc)
            answers += opened(iter([request]), metadata=metadata, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            return error.code().name, error.details() or "", _read(rpc, answers)
    return "OK", "", _read(rpc, answers)


def _read(rpc: str, answers: list[bytes]) -> list[Message]:
    return [classes_of(rpc)[1].FromString(answer) for answer in answers]


def by_http(
    live: LiveServer, rpc: str, method: descriptor_pb2.MethodDescriptorProto, codec: str, request: bytes, token: str
) -> Answer:
    """Ask by Connect, as the method needs it."""
    is_stream = method.client_streaming or method.server_streaming
    kind = f"application/connect+{codec}" if is_stream else f"application/{codec}"
    headers = {"content-type": kind} | ({"authorization": f"Bearer {token}"} if token else {})
    reply = fetch(live, "POST", rpc, enveloped(request) if is_stream else request, headers)

    def read(data: bytes) -> Message:
        response: Message = classes_of(rpc)[1]()
        return json_format.Parse(data, response) if codec == "json" else type(response).FromString(data)

    if not is_stream:
        return (*reply.outcome, [read(reply.body)] if reply.status == 200 else [])
    assert reply.status == 200, reply
    (*messages, (flags, end)) = envelopes_of(reply.body)
    assert flags == 2
    assert not any(flags for flags, _ in messages)
    ending = Reply(200 if end == b"{}" else 400, {}, end)
    if ending.status != 200:
        ending.body = json.dumps(ending.json["error"]).encode()
    return (*ending.outcome, [read(data) for _, data in messages])


def comparable(answer: Answer) -> Any:  # noqa: ANN401 - for comparing alone
    """Return an answer without what is another's in every call."""

    def stripped(value: Any) -> Any:  # noqa: ANN401 - a part of a message
        if isinstance(value, dict):
            return {key: stripped(each) for key, each in value.items() if key not in _OWN_TO_A_CALL}
        return [stripped(each) for each in value] if isinstance(value, list) else value

    code, text, messages = answer
    as_dicts = [json_format.MessageToDict(message, preserving_proto_field_name=True) for message in messages]
    return code, text, stripped(as_dicts)


@pytest.mark.parametrize("token", ["", "wrong", "classify", "label", "operate"])
def test_every_rpc_ends_alike_by_both_mouths_whoever_asks(
    live: LiveServer, rpcs: dict[str, descriptor_pb2.MethodDescriptorProto], token: str
) -> None:
    """Every RPC that reflection shows: none is forgotten."""
    codes = set()
    for rpc, method in rpcs.items():
        request = filled(classes_of(rpc)[0])
        expected = comparable(by_grpc(live, rpc, request.SerializeToString(), token))
        codes.add(expected[0])
        in_json = json_format.MessageToJson(request).encode()
        assert comparable(by_http(live, rpc, method, "json", in_json, token)) == expected, rpc
        as_bytes = request.SerializeToString()
        assert comparable(by_http(live, rpc, method, "proto", as_bytes, token)) == expected, rpc
    assert codes >= ({"UNAUTHENTICATED"} if token in ("", "wrong") else {"OK", "NOT_FOUND"}), codes


def test_bytes_that_are_no_message_are_refused_alike_by_both_mouths(
    live: LiveServer, rpcs: dict[str, descriptor_pb2.MethodDescriptorProto]
) -> None:
    for rpc, method in rpcs.items():
        expected = by_grpc(live, rpc, b"\xff\xff", "operate")
        assert by_http(live, rpc, method, "proto", b"\xff\xff", "operate") == expected, rpc
        assert by_http(live, rpc, method, "json", b"\xff\xff", "operate")[0] == expected[0] == "INVALID_ARGUMENT", rpc


def test_calls_are_counted_alike_by_both_mouths(
    live: LiveServer, rpcs: dict[str, descriptor_pb2.MethodDescriptorProto]
) -> None:
    rpc = "/regraft.v1.Models/GetModel"

    def counts() -> tuple[float, float]:
        asked = {"method": "GetModel"}
        ok = live.metric("regraft_requests_total", **asked, code="OK", model="colours") or 0
        return ok, live.metric("regraft_requests_total", **asked, code="PERMISSION_DENIED") or 0

    request = models_pb2.GetModelRequest(name="colours").SerializeToString()

    def ask(mouth: str, token: str) -> str:
        if mouth == "grpc":
            return by_grpc(live, rpc, request, token)[0]
        return by_http(live, rpc, rpcs[rpc], "proto", request, token)[0]

    for mouth in ("grpc", "http"):
        before = counts()
        assert ask(mouth, "operate") == "OK"
        assert ask(mouth, "classify") == "PERMISSION_DENIED"
        assert counts() == (before[0] + 1, before[1] + 1)


CHANGES: Final = [
    ("/regraft.v1.Retraining/AddExamples", retraining_pb2.AddExamplesRequest(image=picture("red", 90), label="red")),
    ("/regraft.v1.Retraining/AddExamples", retraining_pb2.AddExamplesRequest(image=picture("red", 91), label="blue")),
    ("/regraft.v1.Models/Promote", models_pb2.PromoteRequest(name="colours", version=2, why="better")),
    ("/regraft.v1.Models/Rollback", models_pb2.RollbackRequest(name="colours", why="worse")),
    ("/regraft.v1.Examples/ListExamples", examples_pb2.ListExamplesRequest(name="colours")),
    ("/regraft.v1.Models/GetModel", models_pb2.GetModelRequest(name="colours")),
    ("/regraft.v1.Models/Promote", models_pb2.PromoteRequest(name="colours", version=9, why="not there")),
]


def test_changes_have_the_same_effect_and_leave_the_same_lines_by_both_mouths(
    tmp_path: Path, audit_lines: AuditLines
) -> None:
    stories = []
    for mouth in ("grpc", "json", "proto"):
        store = ModelStore(tmp_path / mouth)
        publish_tiny(store)
        publish_tiny(store, sharpness=5.0, promote=False)
        with LiveServer(store, http="127.0.0.1:0", callers=callers_file(tmp_path), bake=0) as live:
            with grpc.insecure_channel(live.target) as channel:
                rpcs = rpcs_of(channel)
            story, before = [], len(audit_lines())
            for rpc, message in CHANGES:
                data = message.SerializeToString()
                if mouth == "grpc":
                    answer = by_grpc(live, rpc, data, "operate")
                else:
                    data = json_format.MessageToJson(message).encode() if mouth == "json" else data
                    answer = by_http(live, rpc, rpcs[rpc], mouth, data, "operate")
                story.append(comparable(answer))
            lines = [line | {"from": line["from"].rpartition(":")[0]} for line in audit_lines()[before:]]
            stories.append(([(code, text.replace(str(store.root), ""), told) for code, text, told in story], lines))

    by_grpc_alone = stories[0]
    assert [code for code, *_ in by_grpc_alone[0]] == ["OK"] * 6 + ["NOT_FOUND"]
    assert len(by_grpc_alone[1]) == len(CHANGES)
    assert stories[1] == by_grpc_alone
    assert stories[2] == by_grpc_alone
