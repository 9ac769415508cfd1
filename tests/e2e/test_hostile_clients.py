"""Bad clients get the status that they deserve, memory stays bounded, and nobody else notices.

What each test measured is in its name's output: ``pytest -rP``. A well-behaved client classifies all the while.
"""

import itertools
import resource
import struct
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.memory import MB, forget_peak, peak_bytes, resident_bytes
from regraft.client.client import Client, RemoteError
from regraft.oip import inference_pb2, inference_pb2_grpc
from regraft.stores.models import ModelStore
from regraft.v1 import classifier_pb2, classifier_pb2_grpc, retraining_pb2, retraining_pb2_grpc
from tests.e2e.bombs import BOMBS
from tests.e2e.conftest import ServerProcess, others_unharmed, report
from tests.e2e.raw_http2 import RawConnection
from tests.tiny import picture, publish_tiny
from tests.waiting import wait_until

CONNECTIONS = 10_000
SPARE_FILES = 1_000
SIDE_PX = 150
CLASSIFY = "/regraft.v1.Classifier/Classify"
GIVEN_UP = 'regraft_requests_total{code="CANCELLED",method="ClassifyStream",model="colours"}'
CLASSIFY_STREAM = "/regraft.v1.Classifier/ClassifyStream"


class Watched:
    """The server's process, seen from outside."""

    def __init__(self, server: ServerProcess) -> None:
        self.target = server.places["grpc"]
        self._metrics = server.places["metrics"]
        self._pid = server.process.pid
        # Later on there may be connections of a test before that are about to close.
        self.files_alone = self.files()

    def memory(self) -> int:
        """Return the bytes of RAM that it has now."""
        return resident_bytes(self._pid)

    def peak(self) -> int:
        """Return the most bytes of RAM that it had since `forget_the_peak`."""
        return peak_bytes(self._pid)

    def forget_the_peak(self) -> int:
        """Return the bytes of RAM from which on the peak is measured."""
        forget_peak(self._pid)
        return self.memory()

    def files(self) -> int:
        return len(list(Path(f"/proc/{self._pid}/fd").iterdir()))

    def metric(self, line: str) -> float:
        with urllib.request.urlopen(self._metrics, timeout=30) as answer:  # noqa: S310 - our own server's address
            found = (text.rpartition(" ") for text in answer.read().decode().splitlines())
            return next((float(value) for name, _, value in found if name == line), 0.0)

    def is_idle(self) -> bool:
        return self.metric("regraft_in_flight") == self.metric("regraft_queue_depth") == 0


@pytest.fixture(scope="module")
def most_files() -> Iterator[int]:
    """Let this process, and the server that it starts, open as many files as the machine allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, most_files: int) -> Iterator[Watched]:
    """One server for all: whatever a test does to it, it must serve the next, and stop as it should."""
    assert most_files > SPARE_FILES
    store = ModelStore(tmp_path_factory.mktemp("hostile") / "store")
    publish_tiny(store)
    with pytest.MonkeyPatch.context() as patch:
        # With an arena for each thread, malloc keeps up to twice as much, and reaches its most only after many rounds.
        patch.setenv("MALLOC_ARENA_MAX", "1")
        process = ServerProcess(store.root)
    with process:
        yield Watched(process)
        assert process.stop() == 0
        log = process.log.read_text()
    assert "0 call(s) cut" in log
    assert not [line for line in log.splitlines() if " ERROR regraft." in line or " ERROR asyncio:" in line], log


@pytest.fixture
def channel(server: Watched) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.target, options=options) as channel:
        yield channel


def _classify(channel: grpc.Channel, image: bytes) -> None:
    classifier_pb2_grpc.ClassifierStub(channel).Classify(classifier_pb2.ClassifyRequest(image=image))


def _classify_stream(channel: grpc.Channel, image: bytes) -> None:
    request = classifier_pb2.ClassifyStreamRequest(request=classifier_pb2.ClassifyRequest(image=image))
    list(classifier_pb2_grpc.ClassifierStub(channel).ClassifyStream(iter([request])))


def _add_examples(channel: grpc.Channel, image: bytes) -> None:
    request = retraining_pb2.AddExamplesRequest(image=image, label="grey")
    list(retraining_pb2_grpc.RetrainingStub(channel).AddExamples(iter([request])))


def _model_infer(channel: grpc.Channel, image: bytes) -> None:
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    raw = struct.pack("<I", len(image)) + image
    inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(
        inference_pb2.ModelInferRequest(inputs=[tensor], raw_input_contents=[raw])
    )


@pytest.mark.parametrize("send", [_classify, _classify_stream, _add_examples, _model_infer])
def test_a_message_of_200_mb_is_refused_and_never_held(
    server: Watched, channel: grpc.Channel, send: Callable[[grpc.Channel, bytes], None]
) -> None:
    before = server.forget_the_peak()
    with others_unharmed(server.target), pytest.raises(grpc.RpcError) as failure:
        send(channel, bytes(200 * 10**6))

    grown = server.peak() - before
    report(f"at most {grown / MB:.1f} MB more")
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert grown < 30 * MB
    assert server.is_idle()


def test_a_message_of_4_million_outputs_is_refused_before_it_is_unpacked(
    server: Watched, channel: grpc.Channel
) -> None:
    """Each is 2 bytes in the message, and hundreds in memory."""
    infer: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    output = bytes([inference_pb2.ModelInferRequest.OUTPUTS_FIELD_NUMBER << 3 | 2, 0])
    before = server.forget_the_peak()
    with others_unharmed(server.target), pytest.raises(grpc.RpcError) as failure:
        infer(output * (4 * MB))

    grown = server.peak() - before
    report(f"at most {grown / MB:.1f} MB more")
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert grown < 100 * MB


@pytest.mark.parametrize("which", BOMBS)
def test_a_small_file_that_unpacks_to_gigabytes_is_an_invalid_argument(server: Watched, which: str) -> None:
    bomb = BOMBS[which]()
    assert len(bomb) < MB
    before = server.forget_the_peak()
    with others_unharmed(server.target), Client(server.target) as client, pytest.raises(RemoteError) as failure:
        client.classify(bomb)

    grown = server.peak() - before
    report(f"{len(bomb):,} bytes, at most {grown / MB:.1f} MB more: {failure.value}")
    assert failure.value.code == "INVALID_ARGUMENT"
    assert "the limit is 64,000,000 pixels" in str(failure.value)
    assert grown < 30 * MB


def test_10_000_silent_connections_cost_little_each_and_what_they_cost_is_given_back(
    server: Watched, most_files: int
) -> None:
    count = min(CONNECTIONS, most_files - SPARE_FILES)
    before = server.memory()
    grown = []
    for _ in range(6):
        with others_unharmed(server.target), ExitStack() as connections:
            silent = [connections.enter_context(closing(RawConnection(server.target))) for _ in range(count)]
            for connection in silent:
                connection.wait_for_the_server()
            assert server.files() >= server.files_alone + count
            grown.append(server.memory() - before)
        wait_until(lambda: server.files() <= server.files_alone + 5)

    left = server.memory() - before
    report(
        f"{count} connections, {grown[0] / count / 1024:.1f} kB each; {[n // MB for n in grown]}, {left // MB} MB left"
    )
    assert grown[0] / count < 100 * 1024
    # malloc keeps what was given back and uses it again, and may take some more once; a leak adds up in every round.
    assert min(later / earlier for earlier, later in itertools.pairwise(grown[1:])) < 1.05


def test_half_a_message_holds_no_permit(server: Watched) -> None:
    whole = picture("red", side_px=SIDE_PX)
    assert 16_384 < len(whole) < 65_535
    files, before = server.files(), server.forget_the_peak()
    with ExitStack() as connections:
        with others_unharmed(server.target) as load:
            for number in range(300):
                connection = connections.enter_context(closing(RawConnection(server.target)))
                stream = connection.call((CLASSIFY, CLASSIFY_STREAM)[number % 2])
                half = {"announced": 32 * MB} if number % 3 else {"cut": 10_000}
                connection.send(stream, whole[:60_000], **half)
            load.wait_for(100)
        wait_until(lambda: server.files() >= server.files_alone + 300)
        wait_until(server.is_idle)  # though all of them are still there
        grown = server.peak() - before
    wait_until(lambda: server.files() <= files + 5)

    report(f"300 half messages: at most {grown / MB:.1f} MB more")
    assert grown < 300 * 200 * 1024


@pytest.mark.parametrize("any_order", [False, True], ids=["in order", "in any order"])
def test_a_client_that_never_reads_its_stream_is_held_back(
    server: Watched, channel: grpc.Channel, any_order: bool
) -> None:
    """Its ids are long, so that answers soon fill the window of the connection that nobody reads."""
    sent = itertools.count()
    taken = 0
    gone = threading.Event()
    image = picture("red", side_px=SIDE_PX)

    def requests() -> Iterator[classifier_pb2.ClassifyStreamRequest]:
        nonlocal taken
        for taken in sent:
            if gone.is_set() or taken >= 5_000:
                return
            classify = classifier_pb2.ClassifyRequest(image=image)
            yield classifier_pb2.ClassifyStreamRequest(id="x" * 10_000, request=classify, any_order=any_order)

    def is_held_back() -> bool:
        before = taken
        load.wait_for(200)
        return taken == before

    answered = server.metric('regraft_stage_seconds_count{model="colours",stage="total"}')
    before = server.forget_the_peak()
    with others_unharmed(server.target) as load:
        stream: Any = classifier_pb2_grpc.ClassifierStub(channel).ClassifyStream(requests())
        load.wait_for(100)
        wait_until(is_held_back)
    wait_until(server.is_idle)  # it waits for its reader with no permit in its hand
    grown = server.peak() - before
    in_all = server.metric('regraft_stage_seconds_count{model="colours",stage="total"}') - answered
    report(f"{taken} requests sent of 5,000; {in_all:.0f} answers with the others'; at most {grown / MB:.1f} MB more")
    gone.set()
    given_up = server.metric(GIVEN_UP)
    stream.cancel()

    wait_until(lambda: server.metric(GIVEN_UP) == given_up + 1)
    assert taken < 1_000
    assert grown < 60 * MB
