"""Requests as bad as can be: each gets a status that says whose fault it is, and costs the others nothing."""

import os
import random
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings

from regraft.client.client import Client, RemoteError
from regraft.errors import CallerError
from regraft.oip import inference_pb2 as oip
from regraft.oip import inference_pb2_grpc as oip_grpc
from regraft.stores.models import MODEL_FILE, ModelStore
from regraft.v1 import classifier_pb2 as pb
from regraft.v1 import classifier_pb2_grpc as pb_grpc
from serving.rpc.open_inference.tensors import join, pictures_of
from serving.server import Server
from serving.settings import Settings
from tests.grpc_loop import grpc_loop
from tests.live_server import LiveServer
from tests.serving.rpc.hostile_tensors import FIT, REQUESTS
from tests.tiny import picture, publish_tiny
from tests.waiting import PATIENCE_S, wait_until

MB = 2**20
Code = grpc.StatusCode
InputTensor = oip.ModelInferRequest.InferInputTensor


@pytest.fixture
def channel(shared: LiveServer) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(shared.target, options=options) as channel:
        yield channel


def status(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return Code.OK, ""


@settings(max_examples=400)
@given(REQUESTS)
def test_any_request_for_inference_is_pictures_or_the_callers_fault(request: oip.ModelInferRequest) -> None:
    with suppress(CallerError):
        pictures = pictures_of(request)

        assert len(pictures) == request.inputs[0].shape[0]
        assert all(isinstance(item, bytes) or (item.dtype.name, item.ndim) == ("uint8", 3) for item in pictures)


def test_no_request_for_inference_is_answered_with_an_internal_error(shared: LiveServer) -> None:
    with grpc.insecure_channel(shared.target) as channel:
        infer = oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer

        @settings(max_examples=200)
        @given(REQUESTS)
        def ask(request: oip.ModelInferRequest) -> None:
            code, text = status(lambda: infer(request))
            assert code in (Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.DEADLINE_EXCEEDED), text

        ask()


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata"])
def test_a_version_of_5000_digits_does_not_exist(channel: grpc.Channel, method: str) -> None:
    stub, digits = oip_grpc.GRPCInferenceServiceStub(channel), "9" * 5_000
    calls: dict[str, Callable[[], object]] = {
        "ModelInfer": lambda: stub.ModelInfer(
            oip.ModelInferRequest(model_version=digits, inputs=[FIT], raw_input_contents=[join([picture("red")])])
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
    classify: Any = channel.unary_unary("/regraft.v1.Classifier/Classify")
    stream: Any = channel.stream_stream("/regraft.v1.Classifier/ClassifyStream")

    assert status(lambda: classify(b"\xff" * 10))[0] is Code.INVALID_ARGUMENT
    assert status(lambda: list(stream(iter([b"", b"\xff" * 10]))))[0] is Code.INVALID_ARGUMENT


# Millions of things in few bytes: elements without a byte, numbers, inputs without a field.
SWARMS: dict[str, Callable[[], oip.ModelInferRequest]] = {
    "elements": lambda: oip.ModelInferRequest(inputs=[FIT], raw_input_contents=[bytes(4 * MB)]),
    "numbers": lambda: oip.ModelInferRequest(
        inputs=[
            InputTensor(
                name="image",
                datatype="UINT8",
                shape=[1, 1, 1, 3],
                contents=oip.InferTensorContents(uint_contents=bytes(4 * MB)),
            )
        ]
    ),
    "inputs": lambda: oip.ModelInferRequest.FromString(b"\x2a\0" * MB),
}


@pytest.mark.parametrize("which", SWARMS)
def test_a_swarm_of_tiny_things_is_refused_without_a_look_at_each(which: str) -> None:
    """It would hold up the event loop, and with it everyone, for seconds; what it takes of memory tells."""
    swarm = SWARMS[which]()
    tracemalloc.start()
    try:
        with pytest.raises(CallerError) as refusal:
            pictures_of(swarm)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(str(refusal.value)) < 1_000
    assert peak < 6 * MB  # of which the tensor itself is 4


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port on which only who shares it can listen, and nobody does yet."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def slow_to_read(path: Path) -> Iterator[None]:
    """Let nobody come to the end of a file until the block ends."""
    whole = path.with_name("whole")
    path.rename(whole)
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    try:
        yield
    finally:
        whole.replace(path)
        os.close(writer)  # who reads the pipe finds it empty, which is a model that cannot be loaded


def test_while_the_first_model_loads_a_request_is_told_so_at_once(store: ModelStore) -> None:
    """The server listens before the first look at the store has ended."""
    with reserved_port() as port:
        settings = Settings(
            store=store.root, grpc=f"127.0.0.1:{port}", metrics="127.0.0.1:0", provider="cpu", share_port=True
        )

        async def build() -> Server:
            return Server(settings)

        server = grpc_loop().run(build())
        with Client(f"127.0.0.1:{port}", timeout_s=PATIENCE_S) as client:
            with slow_to_read(store.folder("colours", 1) / MODEL_FILE):
                starting = grpc_loop().begin(server.start())
                codes = {name: refused(client, name) for name in ("colours", "shapes")}
                assert not starting.done()
            starting.result(PATIENCE_S)
        assert grpc_loop().run(server.stop()) == 0
    assert codes == {"colours": "FAILED_PRECONDITION", "shapes": "NOT_FOUND"}


def refused(client: Client, name: str) -> str:
    """Return the code of a refusal, from the moment on at which the server listens."""
    codes: list[str] = []

    def is_refused() -> bool:
        with pytest.raises(RemoteError) as failure:
            client.classify(picture("red"), name=name)
        codes.append(failure.value.code)
        return failure.value.code != "UNAVAILABLE"

    wait_until(is_refused)
    return codes[-1]


def test_a_model_without_a_champion_is_refused_while_its_neighbour_answers(store: ModelStore) -> None:
    publish_tiny(store, name="shapes", promote=False)
    with LiveServer(store) as live:
        assert refused(live.client, "shapes") == "FAILED_PRECONDITION"
        assert refused(live.client, "letters") == "NOT_FOUND"
        assert live.client.classify(picture("red"), name="colours").predictions[0].label == "red"


def counted(live: LiveServer) -> dict[str, float]:
    codes = ("OK", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL")
    return {code: live.metric("regraft_requests_total", method="Classify", code=code) or 0 for code in codes}


def is_idle(live: LiveServer) -> bool:
    return live.metric("regraft_in_flight") == live.metric("regraft_queue_depth") == 0


def test_deadlines_of_a_millisecond_pass_and_leave_nothing_behind(store: ModelStore) -> None:
    with LiveServer(store, max_in_flight=400, max_streams=400) as live, grpc.insecure_channel(live.target) as channel:
        classify = pb_grpc.ClassifierStub(channel).Classify
        request = pb.ClassifyRequest(image=picture("red"))
        with live.busy_lanes():
            stays = classify.future(request, timeout=PATIENCE_S)
            wait_until(lambda: live.metric("regraft_in_flight"))
            calls = [classify.future(request, timeout=0.001) for _ in range(200)]
            calls += [classify.future(request, timeout=0.5) for _ in range(100)]
            assert {call.code() for call in calls} == {Code.DEADLINE_EXCEEDED}
            stays.cancel()
            wait_until(lambda: is_idle(live))
        assert live.client.classify(picture("red")).predictions[0].label == "red"
        found = counted(live)

    assert 1 <= found["CANCELLED"] + found["DEADLINE_EXCEEDED"] <= 301
    assert (found["OK"], found["INTERNAL"], found["RESOURCE_EXHAUSTED"]) == (1, 0, 0)


def test_cancelling_at_any_moment_harms_only_who_cancels(store: ModelStore) -> None:
    chance = random.Random(7)
    with LiveServer(store, max_in_flight=600, max_streams=600) as live, grpc.insecure_channel(live.target) as channel:
        classify = pb_grpc.ClassifierStub(channel).Classify
        with ThreadPoolExecutor(2) as pool:
            others = [pool.submit(live.client.classify, picture("blue")) for _ in range(200)]
            mine: list[Any] = []
            for _ in range(500):
                mine.append(classify.future(pb.ClassifyRequest(image=picture("red"))))
                if chance.random() < 0.8:
                    chance.choice(mine[-20:]).cancel()
            labels = {other.result(PATIENCE_S).predictions[0].label for other in others}
        codes = [call.code() for call in mine]
        wait_until(lambda: is_idle(live))
        found = counted(live)
        assert live.stop().result(PATIENCE_S) == 0  # no call is left over

    assert labels == {"blue"}
    assert set(codes) == {Code.OK, Code.CANCELLED}
    assert found["INTERNAL"] == found["RESOURCE_EXHAUSTED"] == 0
    assert codes.count(Code.OK) + 200 <= found["OK"] <= 700
