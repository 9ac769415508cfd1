from base64 import b64encode

from regraft.v1 import classifier_pb2 as pb
from tests.live_server import LiveServer
from tests.serving.http.http_client import CLASSIFY, call, fetch
from tests.tiny import picture


def test_a_picture_is_classified_by_json(shared: LiveServer) -> None:
    reply = call(shared, CLASSIFY, {"image": b64encode(picture("red")).decode(), "topK": 2})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    by_grpc = shared.client.classify(picture("red"), top_k=2)
    assert [each["label"] for each in reply.json["predictions"]] == [each.label for each in by_grpc.predictions]
    assert reply.json["novelty"]["isNovel"] is False, "what is not so is said too"


def test_a_picture_is_classified_by_protobuf(shared: LiveServer) -> None:
    request = pb.ClassifyRequest(image=picture("red")).SerializeToString()
    reply = fetch(shared, "POST", CLASSIFY, request, {"content-type": "application/proto"})
    assert pb.ClassifyResponse.FromString(reply.body).predictions[0].label == "red"
