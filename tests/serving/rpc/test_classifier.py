import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Never, get_args

import grpc
import numpy as np
import pytest
from PIL import Image

from regraft.cli.json_output import answer_to_dict
from regraft.client.client import Client, RemoteError
from regraft.image.decode import decode_crop
from regraft.image.encode import encode_png
from regraft.image.spec import ResizeRule
from regraft.model.artifact import EMBEDDING, IMAGE, Head
from regraft.model.card import Abstention
from regraft.model.session import open_session
from regraft.oip import inference_pb2, inference_pb2_grpc
from regraft.stores.models import ModelStore
from regraft.v1 import classifier_pb2 as pb
from regraft.v1 import classifier_pb2_grpc as pb_grpc
from serving.server import PICTURES
from tests.live_server import LiveServer
from tests.serving.inference.test_classifier import expected
from tests.serving.rpc.retries import retrying
from tests.tiny import SPEC, picture, publish_tiny, tiny_backbone, tiny_head
from tests.waiting import PATIENCE_S, wait_until

LABELS = ("red", "green", "blue")
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.fixture
def live(shared: LiveServer) -> LiveServer:
    """The server that only answers: nothing here changes it."""
    return shared


def encoded(label: str, form: str) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(picture(label))) as image:
        image.save(buffer, form)
    return buffer.getvalue()


def fails(client: Client, image: bytes, **options: str | int) -> RemoteError:
    with pytest.raises(RemoteError) as failure:
        client.classify(image, name=str(options.get("name", "")), top_k=int(options.get("top_k", 0)))
    return failure.value


def probabilities(response: pb.ClassifyResponse) -> dict[str, float]:
    return {prediction.label: prediction.probability for prediction in response.predictions}


def test_models_of_any_script_are_served_and_either_form_of_a_name_will_do(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    publish_tiny(store, name="热狗")
    publish_tiny(store, name="M\u00f6we")

    with LiveServer(store) as live:
        client = live.client
        taken_apart = "Mo\u0308we"
        assert {model.name for model in client.list_models()} == {"热狗", "M\u00f6we"}
        assert client.classify(picture("red"), name="热狗").name == "热狗"
        assert client.classify(picture("red"), name=taken_apart).name == "M\u00f6we"
        list(client.add_examples([(picture("blue", 7), "blue")], name=taken_apart))
        assert [example.label for example in client.list_examples(name="M\u00f6we")] == ["blue"]
        assert client.promote(1, name=taken_apart, who="test").model.name == "M\u00f6we"
        assert client.list_jobs(taken_apart) == []
        with grpc.insecure_channel(live.target) as channel:
            triton = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert triton.ModelReady(inference_pb2.ModelReadyRequest(name="热狗")).ready
        assert live.metric("regraft_served_version", model="热狗") == 1


def striped(width: int = 64, height: int = 16) -> bytes:
    """Return a wide picture: grey with a red end on the left and a blue one on the right."""
    pixels = np.full((height, width, 3), 120, np.uint8)
    pixels[:, : width // 4], pixels[:, -width // 4 :] = (200, 40, 40), (40, 40, 200)
    return encode_png(pixels)


def test_versions_of_one_backbone_cut_pictures_each_by_its_own_rule_also_after_a_swap(tmp_path: Path) -> None:
    """One session serves them all: a served picture is prepared as its version's training pictures were."""
    store, data = ModelStore(tmp_path / "store"), striped()
    specs = [SPEC.resized_by(rule) for rule in get_args(ResizeRule)]
    for spec in specs:
        publish_tiny(store, spec=spec, promote=spec is specs[0])
    head, session = tiny_head(LABELS), open_session(tiny_backbone().SerializeToString(), provider="cpu", threads=1)

    with LiveServer(store) as live:
        for version, spec in enumerate(specs, start=1):
            live.client.promote(version, who="test")
            served = probabilities(live.client.classify(data, top_k=3))
            embedding = session.session.run([EMBEDDING], {IMAGE: decode_crop(data, spec)[None]})[0]
            wanted = dict(zip(LABELS, head.probabilities(embedding)[0].tolist(), strict=True))
            assert served == pytest.approx(wanted, abs=1e-5)
    assert len({decode_crop(data, spec).tobytes() for spec in specs}) == 3


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_picture_of_any_form_is_classified(client: Client, form: str) -> None:
    answer = client.classify(encoded("green", form))

    assert (answer.name, answer.version) == ("colours", 1)
    assert answer.predictions[0].label == "green"
    assert sum(probabilities(answer).values()) == pytest.approx(1, abs=1e-5)


def test_an_answer_says_how_novel_the_picture_is_and_where_the_time_went(client: Client) -> None:
    known, unknown = client.classify(picture("red")), client.classify(picture("grey"))

    assert not known.novelty.is_novel
    assert unknown.novelty.is_novel
    assert known.novelty.threshold == pytest.approx(0.05)
    assert known.novelty.score < known.novelty.threshold < unknown.novelty.score
    timings = known.timings
    assert timings.decode_ms > 0
    assert timings.inference_ms > 0
    assert timings.total_ms >= timings.decode_ms + timings.queue_ms + timings.inference_ms - 1


def test_an_answer_that_is_not_sure_enough_for_the_error_that_was_asked_for_abstains(empty_store: ModelStore) -> None:
    def asked(threshold: float, version: int) -> pb.ClassifyResponse:
        kept = Abstention(target_error=0.02, threshold=threshold, answered=0.75, error=0.01, images=400)
        publish_tiny(empty_store, abstention=kept)
        with LiveServer(empty_store) as server:
            answer = server.client.classify(picture("red"))
        assert answer.version == version
        return answer

    sure, unsure = asked(0.3, 1), asked(1.0, 2)

    assert (sure.abstain, unsure.abstain) == (False, True)
    assert sure.abstention.threshold == pytest.approx(0.3)
    assert sure.abstention.target_error == pytest.approx(0.02)
    assert sure.abstention.answered == pytest.approx(0.75)
    assert unsure.predictions[0].label == "red"  # it is still said
    assert answer_to_dict(pb.ClassifyStreamResponse(id="a.png", response=unsure))["abstain"] is True


def test_a_model_without_a_target_error_never_abstains(client: Client) -> None:
    answer = client.classify(picture("grey"))

    assert not answer.abstain
    assert not answer.HasField("abstention")


@pytest.mark.parametrize(("top_k", "labels"), [(0, 3), (1, 1), (2, 2), (3, 3), (100_000, 3)])
def test_no_more_labels_are_answered_than_asked_for_and_there_are(client: Client, top_k: int, labels: int) -> None:
    assert len(client.classify(picture("red"), top_k=top_k).predictions) == labels


@pytest.mark.parametrize("top_k", [100_001, 2**32 - 1])
def test_a_senseless_number_of_labels_is_refused(client: Client, top_k: int) -> None:
    failure = fails(client, picture("red"), top_k=top_k)

    assert failure.code == "INVALID_ARGUMENT"
    assert "top_k" in str(failure)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "empty"),
        (b"no picture at all", "not a picture"),
        (picture("red")[:70], "cannot be decoded"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is not read here"),
    ],
    ids=["empty", "text", "cut short", "SVG"],
)
def test_what_is_no_picture_is_an_invalid_argument_with_a_reason(client: Client, image: bytes, reason: str) -> None:
    failure = fails(client, image)

    assert failure.code == "INVALID_ARGUMENT"
    assert reason in str(failure)


def test_a_picture_that_is_too_large_is_refused_and_the_limit_is_named(store: ModelStore) -> None:
    with LiveServer(store, max_image_bytes=2048) as live:
        failure = fails(live.client, picture("red") + b"\0" * 3000)
        assert failure.code == "INVALID_ARGUMENT"
        assert "2,048" in str(failure)

        assert fails(live.client, b"\0" * 200_000).code == "RESOURCE_EXHAUSTED"  # gRPC's own limit, before our code
        assert live.client.classify(picture("red")).predictions[0].label == "red"


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(client: Client) -> None:
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")

    failure = fails(client, buffer.getvalue())
    assert failure.code == "INVALID_ARGUMENT"
    assert "9000 x 9000" in str(failure)


def test_an_unknown_model_is_not_found(client: Client) -> None:
    failure = fails(client, picture("red"), name="cats")

    assert failure.code == "NOT_FOUND"
    assert "cats" in str(failure)
    assert "colours" in str(failure)


def test_without_any_model_there_is_something_to_do_first(empty_store: ModelStore) -> None:
    with LiveServer(empty_store) as live:
        failure = fails(live.client, picture("red"))
        assert failure.code == "FAILED_PRECONDITION"
        assert "train" in str(failure)
        assert fails(live.client, picture("red"), name="cats").code == "NOT_FOUND"


def test_with_two_models_the_name_has_to_be_given(store: ModelStore) -> None:
    publish_tiny(store, ("grey", "red"), name="animals")
    with LiveServer(store) as live:
        failure = fails(live.client, picture("red"))
        assert failure.code == "INVALID_ARGUMENT"
        assert "animals, colours" in str(failure)

        assert live.client.classify(picture("grey"), name="animals").predictions[0].label == "grey"
        assert live.client.classify(picture("blue"), name="colours").predictions[0].label == "blue"


@pytest.mark.parametrize("name", ["../colours", "colours/1", ".examples", "a\0b"])
def test_a_name_that_reaches_out_of_the_store_is_no_model(client: Client, name: str) -> None:
    assert fails(client, picture("red"), name=name).code in ("NOT_FOUND", "INVALID_ARGUMENT")


@contextmanager
def full_server(store: ModelStore) -> Iterator[tuple[LiveServer, grpc.Channel]]:
    """Serve with one permit, which is taken until the block ends; who has it is answered then."""
    with (
        LiveServer(store, max_in_flight=1) as live,
        grpc.insecure_channel(live.target) as channel,
        ThreadPoolExecutor(1) as pool,
    ):
        with live.busy_lanes():
            taken = pool.submit(live.client.classify, picture("red"))
            wait_until(lambda: live.metric("regraft_in_flight") == 1)
            yield live, channel
            assert not taken.done()
        assert taken.result(PATIENCE_S).predictions[0].label == "red"


def test_a_full_server_answers_resource_exhausted_at_once(store: ModelStore) -> None:
    """Invariant 5."""
    with full_server(store) as (live, _):
        failure = fails(live.client, b"would be refused if it were looked at")

        assert failure.code == "RESOURCE_EXHAUSTED"
        assert "try again" in str(failure)


@pytest.mark.parametrize("method", PICTURES)
def test_a_full_server_refuses_before_a_picture_has_come(store: ModelStore, method: str) -> None:
    never = threading.Event()

    def nothing_yet() -> Iterator[Never]:
        never.wait()
        yield from ()

    with full_server(store) as (live, channel):
        with pytest.raises(grpc.RpcError) as failure:
            channel.stream_unary(method)(nothing_yet(), timeout=PATIENCE_S)
        never.set()

        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert live.metric("regraft_shed_total") == 1


def test_a_full_server_still_says_that_it_lives_and_which_models_it_has(store: ModelStore) -> None:
    with full_server(store) as (live, channel):
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)

        assert stub.ServerReady(inference_pb2.ServerReadyRequest()).ready
        assert [model.name for model in live.client.list_models()] == ["colours"]


def test_who_is_refused_is_told_when_to_try_again(store: ModelStore) -> None:
    """In the metadata that gRPC's own retry policy heeds."""
    with full_server(store) as (_, channel):
        with pytest.raises(grpc.RpcError) as failure:
            pb_grpc.ClassifierStub(channel).Classify(pb.ClassifyRequest(image=picture("red")))
        metadata = {entry.key: entry.value for entry in failure.value.trailing_metadata() or ()}

        assert 1 <= int(metadata["grpc-retry-pushback-ms"]) <= 10_000


def test_a_client_with_a_retry_policy_is_answered_though_it_was_refused_first(store: ModelStore) -> None:
    options = retrying("RESOURCE_EXHAUSTED", first_s=10.0, most_s=10.0)
    with LiveServer(store, max_in_flight=1) as live, grpc.insecure_channel(live.target, options=options) as channel:
        refused = "regraft_requests_total", {"method": "Classify", "code": "RESOURCE_EXHAUSTED"}
        with ThreadPoolExecutor(2) as pool:
            with live.busy_lanes():
                taken = pool.submit(live.client.classify, picture("red"))
                wait_until(lambda: live.metric("regraft_in_flight") == 1)
                stub = pb_grpc.ClassifierStub(channel)
                retried = pool.submit(stub.Classify, pb.ClassifyRequest(image=picture("blue")))
                wait_until(lambda: (live.metric(refused[0], **refused[1]) or 0) >= 1)
            began_s = time.monotonic()

            assert retried.result(PATIENCE_S).predictions[0].label == "blue"
            assert time.monotonic() - began_s < 5, "the server's hint counts, not the policy's 10 s"
        assert taken.result(PATIENCE_S).predictions[0].label == "red"


def test_a_deadline_that_passes_is_an_error_and_the_server_goes_on(store: ModelStore) -> None:
    """Invariant 4."""
    with LiveServer(store) as live, Client(live.target, timeout_s=0.3) as hurried:
        with live.busy_lanes():
            assert fails(hurried, picture("red")).code == "DEADLINE_EXCEEDED"
            wait_until(lambda: live.metric("regraft_in_flight") == 0)
        assert live.client.classify(picture("red")).predictions[0].label == "red"


def test_the_answers_of_a_stream_come_in_order_each_with_its_id(client: Client) -> None:
    sent = [(f"picture {number}", LABELS[number % 3]) for number in range(200)]
    answers = list(client.classify_stream((key, picture(label)) for key, label in sent))

    assert [(answer.id, answer.response.predictions[0].label) for answer in answers] == sent


def test_in_any_order_an_answer_does_not_wait_for_those_before_it(store: ModelStore) -> None:
    publish_tiny(store, ("grey", "red"), name="animals", scale=2.0)

    def requests() -> Iterator[pb.ClassifyStreamRequest]:
        for key, name in (("slow", "animals"), ("quick", "colours")):
            request = pb.ClassifyRequest(image=picture("red"), name=name)
            yield pb.ClassifyStreamRequest(id=key, request=request, any_order=True)

    # One lane a backbone: all backbones share the CPUs, and the lane that is held keeps one.
    with LiveServer(store, plan="1x1x4") as live, grpc.insecure_channel(live.target) as channel:
        with live.busy_lanes("animals"):
            answers = pb_grpc.ClassifierStub(channel).ClassifyStream(requests(), timeout=PATIENCE_S)
            assert next(answers).id == "quick"
        assert [answer.id for answer in answers] == ["slow"]


def test_in_any_order_each_request_has_one_answer(client: Client) -> None:
    sent = {f"picture {number}": LABELS[number % 3] for number in range(200)}
    answers = list(client.classify_stream(((key, picture(label)) for key, label in sent.items()), any_order=True))

    assert len(answers) == len(sent)
    assert {answer.id: answer.response.predictions[0].label for answer in answers} == sent


def test_a_stream_answers_while_it_is_still_being_sent(client: Client) -> None:
    answered = threading.Event()

    def pictures() -> Iterator[tuple[str, bytes]]:
        yield "first", picture("red")
        assert answered.wait(PATIENCE_S)
        yield "second", picture("blue")

    answers = client.classify_stream(pictures())
    assert next(answers).id == "first"
    answered.set()
    assert [answer.id for answer in answers] == ["second"]


def test_an_empty_stream_ends_without_an_answer(client: Client) -> None:
    assert list(client.classify_stream([])) == []


def test_a_bad_picture_has_an_error_of_its_own_and_does_not_end_the_stream(client: Client) -> None:
    """Invariant 4."""
    images = [picture("red"), b"text", picture("green"), b"", picture("blue"), picture("blue")[:70]]
    answers = list(client.classify_stream((str(number), image) for number, image in enumerate(images)))

    assert [answer.id for answer in answers] == [str(number) for number in range(6)]
    assert [answer.WhichOneof("outcome") for answer in answers] == ["response", "error"] * 3
    assert [answers[row].response.predictions[0].label for row in (0, 2, 4)] == ["red", "green", "blue"]
    assert {answers[row].error.code for row in (1, 3, 5)} == {INVALID_ARGUMENT}
    assert "not a picture" in answers[1].error.message


def test_pictures_of_one_message_are_answered_in_their_order_each_as_it_would_be_alone(client: Client) -> None:
    images = [picture("red"), b"no picture", picture("blue"), picture("green")]

    red, refused, *others = client.classify_batch(images)

    assert [each.response.predictions[0].label for each in (red, *others)] == ["red", "blue", "green"]
    assert probabilities(red.response) == pytest.approx(probabilities(client.classify(images[0])))
    assert (refused.error.code, refused.error.reason) == (INVALID_ARGUMENT, "INVALID_IMAGE")
    assert refused.error.message == str(fails(client, images[1]))


def test_a_message_of_pictures_waits_for_permits_as_a_stream_does(store: ModelStore) -> None:
    with LiveServer(store, max_in_flight=2) as live:
        outcomes = live.client.classify_batch([picture("red")] * 40)
        unknown, known = live.client.classify_batch([picture("red")], name="cats"), live.client.classify_batch([b"x"])

    assert [outcome.response.predictions[0].label for outcome in outcomes] == ["red"] * 40
    assert [each.error.reason for each in (*unknown, *known)] == ["NOT_FOUND", "INVALID_IMAGE"]


def test_every_request_of_a_stream_is_one_of_its_own(store: ModelStore) -> None:
    publish_tiny(store, ("grey", "red"), name="animals")
    requests = [
        pb.ClassifyRequest(image=picture("red"), name="animals", top_k=1),
        pb.ClassifyRequest(image=picture("red"), name="colours", top_k=2),
        pb.ClassifyRequest(image=picture("red"), name="cats"),
        pb.ClassifyRequest(image=picture("red"), name="colours", top_k=2**31),
    ]
    with LiveServer(store) as live, grpc.insecure_channel(live.target) as channel:
        stub = pb_grpc.ClassifierStub(channel)
        answers = list(stub.ClassifyStream(iter([pb.ClassifyStreamRequest(request=request) for request in requests])))

    assert [len(answer.response.predictions) for answer in answers] == [1, 2, 0, 0]
    assert [answer.response.name for answer in answers[:2]] == ["animals", "colours"]
    assert [answer.error.code for answer in answers[2:]] == [grpc.StatusCode.NOT_FOUND.value[0], INVALID_ARGUMENT]


def test_a_stream_waits_for_permits_instead_of_being_refused(store: ModelStore) -> None:
    """Invariant 5: a stream is held back, so that it needs no refusal."""
    with LiveServer(store, max_in_flight=2) as live:
        answers = list(live.client.classify_stream((str(number), picture("red", number)) for number in range(100)))

    assert [answer.id for answer in answers] == [str(number) for number in range(100)]
    assert {answer.WhichOneof("outcome") for answer in answers} == {"response"}


def test_no_more_pictures_of_one_stream_are_worked_on_than_its_window_allows(live: LiveServer) -> None:
    """Invariant 5."""
    with ThreadPoolExecutor(1) as pool, live.busy_lanes() as lanes_go_on:
        stream = live.client.classify_stream((str(number), picture("red", number % 8)) for number in range(500))
        answers = pool.submit(list, stream)
        wait_until(lambda: (live.metric("regraft_queue_depth") or 0) >= 32)
        most = max(live.metric("regraft_in_flight") or 0 for _ in range(100))

        assert 32 <= most < 40
        assert not answers.done()
        lanes_go_on.set()
        assert len(answers.result(PATIENCE_S)) == 500


def test_a_stream_that_the_client_gives_up_leaves_nothing_behind(live: LiveServer) -> None:
    """Invariant 4."""
    with grpc.insecure_channel(live.target) as channel:
        stub = pb_grpc.ClassifierStub(channel)
        request = pb.ClassifyRequest(image=picture("red"))
        cancelled = "regraft_requests_total", {"method": "ClassifyStream", "code": "CANCELLED"}
        before = live.metric(cancelled[0], **cancelled[1]) or 0
        with live.busy_lanes():
            stream = stub.ClassifyStream(
                pb.ClassifyStreamRequest(id=str(number), request=request) for number in count()
            )
            wait_until(lambda: (live.metric("regraft_in_flight") or 0) > 10)
            stream.cancel()

            wait_until(lambda: live.metric("regraft_in_flight") == 0)
            wait_until(lambda: live.metric(cancelled[0], **cancelled[1]) == before + 1)
    assert live.client.classify(picture("red")).predictions[0].label == "red"


def test_requests_from_many_clients_each_get_their_own_answer(live: LiveServer) -> None:
    """Invariant 4."""

    def ask(start: int) -> None:
        with Client(live.target) as client:
            for number in range(start, start + 40):
                image = picture(LABELS[number % 3], number)
                assert probabilities(client.classify(image)) == pytest.approx(
                    expected(image, tiny_head(LABELS), LABELS), abs=1e-4
                )

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(ask, start) for start in range(8)]:
            done.result()


class Crowd:
    """Clients that classify, alone and by stream, for as long as the block lasts; every answer is kept."""

    def __init__(self, target: str, singles: int, streams: int) -> None:
        self.answers: list[tuple[int, pb.ClassifyResponse]] = []
        self.failures: list[object] = []
        self._target = target
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(start,)) for start in range(singles)]
        self._threads += [threading.Thread(target=self._stream, args=(start,)) for start in range(streams)]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def go_on(self, answers: int) -> None:
        """Wait for this many more answers."""
        goal = len(self.answers) + answers
        wait_until(lambda: len(self.answers) >= goal or self.failures)

    def _ask(self, start: int) -> None:
        try:
            with Client(self._target) as client:
                for number in count(start):
                    if self._stop.is_set():
                        return
                    self.answers.append((number % 30, client.classify(picture("red", number % 30))))
        except Exception as error:  # noqa: BLE001 - the test looks at whatever it was
            self.failures.append(error)

    def _stream(self, start: int) -> None:
        def pictures() -> Iterator[tuple[str, bytes]]:
            for number in count(start):
                if self._stop.is_set():
                    return
                permits.acquire()
                yield str(number % 30), picture("red", number % 30)

        permits = threading.Semaphore(20)
        try:
            with Client(self._target) as client:
                for answer in client.classify_stream(pictures()):
                    permits.release()
                    if answer.HasField("response"):
                        self.answers.append((int(answer.id), answer.response))
                    else:
                        self.failures.append(answer)
        except Exception as error:  # noqa: BLE001 - the test looks at whatever it was
            self.failures.append(error)


def test_20_promotions_under_load_fail_no_request_and_every_answer_is_its_versions_own(store: ModelStore) -> None:
    """Invariants 1 and 9: two heads alternate on one session, and every fifth time comes another backbone."""
    publish_tiny(store, sharpness=5.0, promote=False)
    publish_tiny(store, sharpness=10.0, scale=2.0, promote=False)
    heads: dict[int, tuple[Head, float]] = {
        1: (tiny_head(LABELS, 20.0), 1.0),
        2: (tiny_head(LABELS, 5.0), 1.0),
        3: (tiny_head(LABELS, 10.0), 2.0),
    }
    with LiveServer(store) as live:
        with Crowd(live.target, singles=4, streams=2) as crowd:
            for turn in range(1, 21):
                version = 3 if turn % 5 == 0 else 1 + turn % 2
                assert live.client.promote(version, who="test").model.served_version == version
                assert live.client.classify(picture("red")).version == version, "when it returns, it serves"
                crowd.go_on(20)
        assert crowd.failures == []
        swaps = {kind: live.metric("regraft_swaps_total", model="colours", kind=kind) for kind in ("head", "session")}
        assert sum(value or 0 for value in swaps.values()) == 21
        assert swaps["session"] == 1 + 4 + 3  # the first load; four times to the other backbone, three times back

    assert {answer.version for _, answer in crowd.answers} == {1, 2, 3}
    for number, answer in crowd.answers:
        head, scale = heads[answer.version]
        right = expected(picture("red", number), head, LABELS, scale)
        assert probabilities(answer) == pytest.approx(right, abs=1e-4)


def test_streams_wait_for_their_part_and_a_single_request_beside_them_is_not_refused(store: ModelStore) -> None:
    pictures = [("p", picture("red", number)) for number in range(12)]
    with LiveServer(store, max_in_flight=8) as live, ThreadPoolExecutor(5) as pool:
        with live.busy_lanes():
            streams = [pool.submit(lambda: list(live.client.classify_stream(pictures))) for _ in range(4)]
            wait_until(lambda: live.metric("regraft_in_flight") == 2)
            single = pool.submit(live.client.classify, picture("blue"))
            wait_until(lambda: live.metric("regraft_in_flight") == 3)

        assert single.result(PATIENCE_S).predictions[0].label == "blue"
        for stream in streams:
            assert [answer.response.predictions[0].label for answer in stream.result(PATIENCE_S)] == 12 * ["red"]
        assert live.metric("regraft_shed_total") == 0


def test_a_picture_that_takes_more_memory_than_there_is_is_the_callers_fault_in_a_request_and_as_a_label(
    store: ModelStore,
) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (1_200, 1_200)).save(buffer, "WEBP", lossless=True, method=0)
    with LiveServer(store, picture_memory_mb=16) as live:
        with pytest.raises(RemoteError, match="REGRAFT_PICTURE_MEMORY_MB") as failure:
            live.client.classify(buffer.getvalue())
        [added] = live.client.add_examples([(buffer.getvalue(), "red")])

        assert failure.value.code == "INVALID_ARGUMENT"
        assert "REGRAFT_PICTURE_MEMORY_MB" in added.reason
        assert live.client.classify(picture("red")).predictions[0].label == "red"
