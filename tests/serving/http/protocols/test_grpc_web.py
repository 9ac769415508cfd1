from base64 import b64decode, b64encode

import pytest

from regraft.v1 import classifier_pb2 as pb
from regraft.v1 import retraining_pb2
from tests.live_server import LiveServer
from tests.serving.http.http_client import CLASSIFY, Reply, enveloped, envelopes_of, fetch
from tests.tiny import picture

TYPES = ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"]


def ask(live: LiveServer, rpc: str, body: bytes, content_type: str) -> tuple[list[bytes], dict[str, str]]:
    """Return the messages and the trailers."""
    is_text = "text" in content_type
    sent = b64encode(body) if is_text else body
    reply: Reply = fetch(live, "POST", rpc, sent, {"content-type": content_type, "x-grpc-web": "1"})
    assert (reply.status, reply.headers["content-type"]) == (200, content_type)
    received = b"".join(map(b64decode, _blocks(reply.body))) if is_text else reply.body
    (*messages, (flags, end)) = envelopes_of(received)
    assert flags == 0x80
    return [data for _, data in messages], dict(line.split(": ", 1) for line in end.decode().splitlines())


def _blocks(text: bytes) -> list[bytes]:
    """Return base64 of frames, each padded by itself, one by one."""
    quarters = [text[place : place + 4] for place in range(0, len(text), 4)]
    blocks = [b""]
    for quarter in quarters:
        blocks[-1] += quarter
        if quarter.endswith(b"="):
            blocks.append(b"")
    return blocks


@pytest.mark.parametrize("content_type", TYPES)
def test_a_picture_is_classified(shared: LiveServer, content_type: str) -> None:
    request = pb.ClassifyRequest(image=picture("green")).SerializeToString()
    (message,), trailers = ask(shared, CLASSIFY, enveloped(request), content_type)
    assert pb.ClassifyResponse.FromString(message).predictions[0].label == "green"
    assert trailers["grpc-status"] == "0"


@pytest.mark.parametrize("content_type", TYPES)
def test_an_error_comes_in_the_trailers_with_its_details(shared: LiveServer, content_type: str) -> None:
    messages, trailers = ask(shared, CLASSIFY, enveloped(b""), content_type)
    assert (messages, trailers["grpc-status"]) == ([], "3")
    assert "empty" in trailers["grpc-message"]
    assert "grpc-status-details-bin" in trailers


def test_a_stream_of_answers_ends_by_its_status(shared: LiveServer) -> None:
    request = retraining_pb2.WatchRetrainJobRequest(id="nobody").SerializeToString()
    rpc = "/regraft.v1.Retraining/WatchRetrainJob"
    messages, trailers = ask(shared, rpc, enveloped(request), TYPES[0])
    assert (messages, trailers["grpc-status"]) == ([], "5")
    pictures = [
        pb.ClassifyStreamRequest(id=label, request=pb.ClassifyRequest(image=picture(label))).SerializeToString()
        for label in ("red", "blue")
    ]
    messages, trailers = ask(shared, "/regraft.v1.Classifier/ClassifyStream", enveloped(*pictures), TYPES[0])
    assert [pb.ClassifyStreamResponse.FromString(message).id for message in messages] == ["red", "blue"]
    assert trailers["grpc-status"] == "0"


@pytest.mark.parametrize("body", [b"*", b"AAAA", b"AAAAA", b""])
def test_text_that_is_no_base64_is_refused(shared: LiveServer, body: bytes) -> None:
    reply = fetch(shared, "POST", CLASSIFY, body, {"content-type": "application/grpc-web-text"})
    assert b"grpc-status: 3" in b64decode(reply.body)
