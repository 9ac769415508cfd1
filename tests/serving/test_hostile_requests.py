"""Requests as bad as anyone can make them: each gets a status that says whose fault it is, and none costs the others."""

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.client import Client, RemoteError
from regraft.errors import CallerError
from regraft.oip import inference_pb2 as oip
from regraft.oip import inference_pb2_grpc as oip_grpc
from regraft.store import MODEL_FILE, ModelStore
from regraft.v1 import classifier_pb2 as pb
from regraft.v1 import classifier_pb2_grpc as pb_grpc
from serving.server import Server
from serving.settings import Settings
from serving.tensors import MOST_PICTURES, join, pictures_of
from tests.serving.live import LiveServer
from tests.serving.loop import grpc_loop
from tests.serving.waiting import PATIENCE_S, wait_until
from tests.tiny import picture, publish_tiny

MB = 2**20
Code = grpc.StatusCode
InputTensor = oip.ModelInferRequest.InferInputTensor
OutputTensor = oip.ModelInferRequest.InferRequestedOutputTensor

INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.sampled_from(["image", "", "mask", "IMAGE", "image\0"]) | st.text(max_size=5)
TYPES = st.sampled_from(["BYTES", "UINT8", "FP32", "", "bytes"])
SIZES = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 8, MOST_PICTURES, 2**31, 2**32 + 1, 2**62, 2**63 - 1])
PICTURES = st.sampled_from([picture("red"), b"", b"\xff\xff\xff\xff"]) | st.binary(max_size=9)
LENGTHS = st.sampled_from([b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\xff\xff\xff\x7f"])
RAW = (
    st.lists(PICTURES, max_size=3).map(join)
    | st.lists(LENGTHS | PICTURES, max_size=3).map(b"".join)
    | st.integers(0, 400).map(bytes)
)
CONTENTS = st.builds(
    oip.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=2),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2),
    int64_contents=st.lists(INT64, max_size=2),
    uint_contents=st.lists(st.integers(0, 300) | st.integers(0, 2**32 - 1), max_size=12),
    fp32_contents=st.lists(st.floats(width=32), max_size=2),
    bytes_contents=st.lists(PICTURES, max_size=3),
)
PARAMETERS = st.dictionaries(
    st.sampled_from(["timeout", "classification", "triton_enable_empty_final_response", "other"]),
    st.builds(oip.InferParameter, int64_param=INT64)
    | st.builds(oip.InferParameter, string_param=st.text(max_size=3))
    | st.builds(oip.InferParameter, bool_param=st.booleans())
    | st.builds(oip.InferParameter, double_param=st.floats())
    | st.just(oip.InferParameter()),
    max_size=2,
)
INPUTS = st.builds(
    InputTensor,
    name=NAMES | st.just("image"),
    datatype=TYPES,
    shape=st.lists(SIZES, max_size=5) | st.sampled_from([[1], [1, 1], [2], [1, 8, 8, 3], [1, 1, 1, 3]]),
    contents=st.none() | CONTENTS,
    parameters=PARAMETERS,
)
OUTPUTS = st.builds(
    OutputTensor,
    name=st.sampled_from(["probabilities", "label", "novelty", "embedding", "", "mask"]),
    parameters=PARAMETERS,
)
REQUESTS = st.builds(
    oip.ModelInferRequest,
    model_name=st.sampled_from(["", "colours", "shapes", "../colours", "colours\0"]),
    model_version=st.sampled_from(["", "1", "0", "01", "-1", "٣", "1.0", "9" * 30, "9" * 5_000]),
    id=st.text(max_size=3),
    parameters=PARAMETERS,
    inputs=st.lists(INPUTS, max_size=2) | st.lists(INPUTS, min_size=1, max_size=1),
    outputs=st.lists(OUTPUTS, max_size=3),
    raw_input_contents=st.lists(RAW, max_size=2),
)


@pytest.fixture
def channel(shared: LiveServer) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(shared.target, options=options) as channel:
        yield channel


def status(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    try:
        call()
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)  # a failed call is an error and a call
        return error.code(), error.details() or ""
    return Code.OK, ""


@settings(max_examples=400, deadline=None)
@given(REQUESTS)
def test_any_request_for_inference_is_pictures_or_the_callers_fault(request: oip.ModelInferRequest) -> None:
    with suppress(CallerError):
        pictures = pictures_of(request)

        assert len(pictures) == request.inputs[0].shape[0]
        assert all(isinstance(item, bytes) or (item.dtype, item.ndim) == (np.uint8, 3) for item in pictures)


def test_no_request_for_inference_is_answered_with_an_internal_error(shared: LiveServer) -> None:
    with grpc.insecure_channel(shared.target) as channel:
        infer = oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer

        @settings(max_examples=200, deadline=None)
        @given(REQUESTS)
        def ask(request: oip.ModelInferRequest) -> None:
            code, text = status(lambda: infer(request))
            assert code in (Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.DEADLINE_EXCEEDED), text

        ask()


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata"])
def test_a_version_of_5000_digits_does_not_exist(channel: grpc.Channel, method: str) -> None:
    stub, digits = oip_grpc.GRPCInferenceServiceStub(channel), "9" * 5_000
    tensor = InputTensor(name="image", datatype="BYTES", shape=[1])
    calls: dict[str, Callable[[], object]] = {
        "ModelInfer": lambda: stub.ModelInfer(
            oip.ModelInferRequest(model_version=digits, inputs=[tensor], raw_input_contents=[join([picture("red")])])
        ),
        "ModelReady": lambda: stub.ModelReady(oip.ModelReadyRequest(name="colours", version=digits)),
        "ModelMetadata": lambda: stub.ModelMetadata(oip.ModelMetadataRequest(name="colours", version=digits)),
    }

    assert status(calls[method])[0] is (Code.OK if method == "ModelReady" else Code.NOT_FOUND)


@pytest.mark.parametrize("text", ["x" * 20_000, "x" * MB, "\U0001f600" * 5_000], ids=["20 kB", "1 MB", "not ASCII"])
def test_a_very_long_name_has_the_status_of_a_wrong_one(channel: grpc.Channel, text: str) -> None:
    """The message of a status is a header: where it is too long, clients make RESOURCE_EXHAUSTED of any status."""
    classify, infer = pb_grpc.ClassifierStub(channel).Classify, oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer
    tensor = InputTensor(name=text, datatype=text, shape=[1])

    assert status(lambda: classify(pb.ClassifyRequest(image=picture("red"), name=text)))[0] is Code.NOT_FOUND
    assert status(lambda: infer(oip.ModelInferRequest(inputs=[tensor])))[0] is Code.INVALID_ARGUMENT


def test_bytes_that_are_no_message_are_an_invalid_argument(channel: grpc.Channel) -> None:
    for method in ("/regraft.v1.Classifier/Classify", "/inference.GRPCInferenceService/ModelInfer"):
        assert status(lambda: channel.unary_unary(method)(b"\xff" * 10))[0] is Code.INVALID_ARGUMENT  # noqa: B023


FIT = InputTensor(name="image", datatype="BYTES", shape=[1])
# 32 MB that are millions of things: one raw tensor of elements without a byte, typed numbers, inputs without a field.
SWARMS: dict[str, Callable[[], oip.ModelInferRequest]] = {
    "elements": lambda: oip.ModelInferRequest(inputs=[FIT], raw_input_contents=[bytes(32 * MB)]),
    "numbers": lambda: oip.ModelInferRequest(
        inputs=[
            InputTensor(
                name="image",
                datatype="UINT8",
                shape=[1, 1, 1, 3],
                contents=oip.InferTensorContents(uint_contents=bytes(32 * MB)),
            )
        ]
    ),
    "inputs": lambda: oip.ModelInferRequest.FromString(b"\x2a\0" * (1 * MB)),
}


@pytest.mark.parametrize("which", SWARMS)
def test_a_swarm_of_tiny_things_is_refused_without_a_look_at_each(which: str) -> None:
    """What is refused on the event loop must not hold it up: building the request costs more than refusing it."""
    swarm = SWARMS[which]()
    copying_s = min(_seconds(lambda: oip.ModelInferRequest.FromString(swarm.SerializeToString())) for _ in range(2))

    with pytest.raises(CallerError) as refusal:
        began_s = _seconds(lambda: None)
        pictures_of(swarm)
    assert len(str(refusal.value)) < 1_000
    assert began_s < copying_s
