import io
from contextlib import closing
from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from PIL import Image

from regraft.client.client import Client, RemoteError
from regraft.files import cache_folder
from regraft.label_rules import image_hash
from regraft.stores.examples import open_examples
from regraft.stores.labels import NewExample
from regraft.stores.models import ModelStore
from regraft.v1 import examples_pb2 as pb
from regraft.v1.classifier_pb2 import PictureError
from regraft.v1.examples_pb2_grpc import ExamplesStub
from serving.retraining.thumbnails import ThumbnailCache
from tests.live_server import LiveServer
from tests.tiny import picture, publish_tiny
from tests.waiting import wait_until

REQUEST = pb.ListExamplesRequest
SENT = [(picture("red", 100), "red"), (picture("green", 100), "blue"), (picture("blue", 100), "blue")]
WRONG = image_hash(SENT[1][0])


@pytest.fixture
def labelled(live: LiveServer) -> LiveServer:
    """A server with three examples and their predictions; one label is wrong."""
    list(live.client.add_examples(SENT, source="a phone"))
    wait_until(lambda: pending(live.client) == 0)
    return live


def pending(client: Client) -> int:
    (page,) = client.example_pages(with_predictions=True)
    return page.predictions_pending


def hashes(client: Client, **conditions: object) -> list[str]:
    return [each.sha256 for each in client.list_examples(**conditions)]


def test_the_label_that_is_likely_wrong_comes_first_with_what_the_version_answers(labelled: LiveServer) -> None:
    first, *others = labelled.client.list_examples(order=REQUEST.ORDER_LIKELY_WRONG)

    assert (first.sha256, first.label, first.prediction.label) == (WRONG, "blue", "green")
    assert first.prediction.suspicion == pytest.approx(1 - first.prediction.label_probability)
    assert (first.prediction.suspected, first.prediction.unseen) == (True, True), "it is newer than the version"
    assert [each.prediction.suspected for each in others] == [False, False]
    assert {each.split for each in (first, *others)} == {pb.SPLIT_UNDECIDED}


def test_examples_are_found_by_what_the_version_makes_of_their_labels(labelled: LiveServer) -> None:
    client = labelled.client

    assert hashes(client, outcome=REQUEST.OUTCOME_WRONG) == hashes(client, suspected=True) == [WRONG]
    assert len(hashes(client, outcome=REQUEST.OUTCOME_RIGHT, label="blue", source="a phone")) == 1
    assert hashes(client, split=pb.SPLIT_HOLDOUT) == []
    soon = Timestamp()
    soon.FromDatetime(datetime(2999, 1, 1, tzinfo=UTC))
    assert hashes(client, since=soon) == []
    assert all(not each.HasField("prediction") for each in client.list_examples()), "it was not asked for"


def test_after_a_swap_the_answer_says_what_is_to_be_made_anew_and_old_tokens_hold_no_more(
    labelled: LiveServer, store: ModelStore
) -> None:
    with grpc.insecure_channel(labelled.target) as channel:
        stub = ExamplesStub(channel)
        asked = REQUEST(order=REQUEST.ORDER_LEAST_SURE, page_size=1)
        first = stub.ListExamples(asked)
        assert (first.version, first.predictions_pending) == (1, 0)
        asked.page_token = first.next_page_token
        second = stub.ListExamples(asked)
        assert second.examples[0].prediction.probability >= first.examples[0].prediction.probability

        publish_tiny(store, sharpness=3.0)
        wait_until(lambda: labelled.client.get_model().served_version == 2)
        with pytest.raises(grpc.RpcError, match="page_token: another version is served") as refusal:
            stub.ListExamples(asked)
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    wait_until(lambda: pending(labelled.client) == 0)
    (page,) = labelled.client.example_pages(order=REQUEST.ORDER_LEAST_SURE)
    assert (page.version, len(page.examples)) == (2, 3)


def test_a_relabelled_example_is_judged_by_its_new_label(labelled: LiveServer) -> None:
    labelled.client.relabel_example(WRONG, "green")

    wait_until(lambda: pending(labelled.client) == 0)
    assert hashes(labelled.client, suspected=True) == []


@pytest.mark.parametrize(
    "conditions", [{"order": 99}, {"split": 99}, {"outcome": 99}, {"since": Timestamp(seconds=-1 << 60)}]
)
def test_what_this_server_does_not_know_is_refused_by_its_name(
    shared: LiveServer, conditions: dict[str, object]
) -> None:
    (name,) = conditions
    with pytest.raises(RemoteError, match=f"^{name}: ") as refusal:
        list(shared.client.list_examples(**conditions))
    assert refusal.value.code == "INVALID_ARGUMENT"


def test_thumbnails_come_in_order_and_what_has_none_is_an_error_of_its_own(
    labelled: LiveServer, store: ModelStore
) -> None:
    with closing(open_examples(store.root)) as examples:
        examples.image_file(WRONG).unlink()
    asked = [WRONG, "0" * 64, *(image_hash(data) for data, _ in SENT[::2])]
    labelled.client.remove_example(asked[-1])
    gone, unknown, *shown = labelled.client.thumbnails(asked, side_px=16).values()

    assert isinstance(gone, PictureError)
    assert (gone.code, gone.reason) == (5, "NOT_FOUND")
    assert isinstance(unknown, PictureError)
    assert unknown.message == f"model 'colours' has no picture '{'0' * 64}'"
    for thumbnail in shown:  # of the removed one, too: it may be restored
        assert isinstance(thumbnail, bytes)
        assert Image.open(io.BytesIO(thumbnail)).size == (16, 16)


def test_pictures_without_a_label_have_thumbnails_too(live: LiveServer) -> None:
    waiting = picture("grey", 5)
    list(live.client.add_pictures([waiting]))

    (thumbnail,) = live.client.thumbnails([image_hash(waiting)]).values()
    assert isinstance(thumbnail, bytes)


def test_what_does_not_fit_an_answer_is_to_be_asked_for_in_another(live: LiveServer, store: ModelStore) -> None:
    large = bytes(60_000) + b"\xff\xd9"
    new = [NewExample(b"picture %d" % number, "red") for number in range(60)]
    with closing(open_examples(store.root)) as examples:
        examples.labels.record("colours", new, "", 0)
    cache = ThumbnailCache(cache_folder() / "thumbnails", 2**30)
    for each in new:
        cache.put(each.sha256, 128, large)

    found = list(live.client.thumbnails([each.sha256 for each in new]).values())
    full = [each for each in found if isinstance(each, PictureError)]
    assert found[:52] == [large] * 52
    assert 60 - len(full) == 52
    assert {(each.code, each.message) for each in full} == {
        (8, "the answer is full: ask for this one in another request")
    }


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"hashes": []}, "sha256: 0 hashes; a request names 1 to 256"),
        ({"hashes": ["0" * 64] * 257}, "sha256: 257 hashes"),
        ({"hashes": ["../../etc/passwd"]}, "sha256: '../../etc/passwd' is no SHA-256"),
        ({"hashes": ["0" * 64], "side_px": 257}, "side_px: 257; it is 16 to 256"),
        ({"hashes": ["0" * 64], "side_px": -1}, "side_px: -1"),
    ],
)
def test_thumbnails_are_of_whole_hashes_and_small(shared: LiveServer, asked: dict[str, object], complaint: str) -> None:
    with pytest.raises(RemoteError, match=complaint) as refusal:
        shared.client.thumbnails(**asked)  # type: ignore[arg-type]  # that is the point
    assert refusal.value.code == "INVALID_ARGUMENT"
