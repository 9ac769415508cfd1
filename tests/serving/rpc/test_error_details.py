import base64
from typing import Any, cast
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from regraft import errors
from regraft.client.client import Client, RemoteError
from regraft.v1 import classifier_pb2, examples_pb2, examples_pb2_grpc
from regraft.v1 import retraining_pb2 as pb
from serving.rpc.error_details import trailers_of
from serving.rpc.status import status_of
from serving.telemetry.call import Call
from tests.live_server import LiveServer

MOST_HEADER_BYTES = 8192
"""That gRPC's clients take for sure."""


def details(error: BaseException, request: Message | None = None, call: Call | None = None) -> dict[str, Any]:
    """Return the details of an error, by kind."""
    (data,) = [value for key, value in trailers_of(error, call, request) if key == "grpc-status-details-bin"]
    return unpacked(Status.FromString(data))


def unpacked(status: Status) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for packed in status.details:
        for kind in (ErrorInfo, RetryInfo, BadRequest):
            detail = kind()
            if packed.Unpack(detail):
                found[kind.__name__] = detail
    return found


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.InvalidImageError("no picture"), "INVALID_IMAGE"),
        (errors.NotFoundError("no such model"), "NOT_FOUND"),
        (errors.MissingPackageError("no torch"), "MISSING_PACKAGE"),
        (errors.OverloadedError("full"), "OVERLOADED"),
        (MemoryError("12 MB"), "OUT_OF_MEMORY"),
        (KeyError("/home/operator"), "INTERNAL"),
    ],
)
def test_every_error_has_a_reason_for_programs(error: Exception, reason: str) -> None:
    info = details(error)["ErrorInfo"]

    assert (info.reason, info.domain, dict(info.metadata)) == (reason, "regraft", {})


def test_an_error_names_the_model_that_it_is_about() -> None:
    call = Call("Promote")
    call.model = "flowers"

    assert dict(details(errors.PreconditionError("no"), call=call)["ErrorInfo"].metadata) == {"model": "flowers"}


def test_who_may_try_again_is_told_when_and_nobody_else_is() -> None:
    retry = details(errors.OverloadedError("full", 12.25))["RetryInfo"]

    assert retry.retry_delay.ToMilliseconds() == 12_250
    assert "RetryInfo" not in details(errors.PreconditionError("no"))


@pytest.mark.parametrize(
    ("text", "asked", "field"),
    [
        ("limits.max_drop: 5 is no share", pb.RetrainRequest(), "limits.max_drop"),
        ("label 'x': control characters", examples_pb2.RelabelExampleRequest(), "label"),
        ("requests: 300 pictures", classifier_pb2.BatchClassifyRequest(), "requests"),
        ("limits.nothing: 5 is no share", pb.RetrainRequest(), ""),
        ("quota: used up", pb.RetrainRequest(), ""),
        ("name: which?", None, ""),
        (": which?", pb.RetrainRequest(), ""),
    ],
)
def test_an_error_of_a_field_names_it_where_the_request_has_it(text: str, asked: Message | None, field: str) -> None:
    bad = details(errors.InvalidRequestError(text), asked).get("BadRequest", BadRequest())

    assert [violation.field for violation in bad.field_violations] == ([field] if field else [])


def test_bytes_that_are_no_picture_are_the_field_image() -> None:
    bad = details(errors.InvalidImageError("the image is empty"), classifier_pb2.ClassifyRequest())["BadRequest"]

    assert [(each.field, each.description) for each in bad.field_violations] == [("image", "the image is empty")]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=800), st.floats(0, 1e9))
def test_whatever_an_error_says_every_client_takes_it(text: str, wait_s: float) -> None:
    call = Call("Promote")
    call.model = "\U0001f33b" * 48
    for error in (errors.InvalidRequestError(f"name: {text}"), errors.OverloadedError(text, wait_s)):
        trailers = trailers_of(error, call, pb.RetrainRequest())
        sizes = [len(base64.b64encode(each) if isinstance(each, bytes) else each) for _, each in trailers]

        assert len(quote(status_of(error)[1])) + sum(sizes) + 32 * len(trailers) < MOST_HEADER_BYTES


def test_a_client_reads_the_details_of_an_error(shared: LiveServer) -> None:
    with grpc.insecure_channel(shared.target) as channel, pytest.raises(grpc.RpcError) as failure:
        examples_pb2_grpc.ExamplesStub(channel).ListExamples(examples_pb2.ListExamplesRequest(page_size=-1))

    status = rpc_status.from_call(cast("grpc.Call", failure.value))
    assert status is not None
    found = unpacked(status)
    assert found["ErrorInfo"].reason == "INVALID_REQUEST"
    assert [each.field for each in found["BadRequest"].field_violations] == ["page_size"]


def test_a_client_of_ours_knows_an_errors_reason(shared: LiveServer) -> None:
    with pytest.raises(RemoteError) as failure:
        shared.client.classify(b"no picture")
    assert (failure.value.code, failure.value.reason) == ("INVALID_ARGUMENT", "INVALID_IMAGE")
    with pytest.raises(RemoteError) as failure:
        list(shared.client.watch_job("nobody"))
    assert failure.value.reason == "NOT_FOUND"
    with Client("127.0.0.1:1") as nobody, pytest.raises(RemoteError) as failure:
        nobody.list_models()
    assert (failure.value.code, failure.value.reason) == ("UNAVAILABLE", "")
