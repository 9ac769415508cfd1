import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import grpc
import numpy as np
import pytest

from regraft.client.client import Client, RemoteError
from regraft.image.encode import encode_png
from regraft.label_rules import image_hash
from regraft.stores.examples import ExamplesStore, open_examples
from regraft.stores.models import ModelStore
from regraft.v1 import retraining_pb2
from regraft.v1.examples_pb2 import ListExamplesRequest, RemoveExampleRequest, Suggestion
from regraft.v1.examples_pb2_grpc import ExamplesStub
from tests.live_server import LiveServer
from tests.serving.rpc.retries import retrying
from tests.tiny import picture
from tests.waiting import PATIENCE_S, wait_until

ACCEPTED = retraining_pb2.AddExamplesResponse.OUTCOME_ACCEPTED
REJECTED = retraining_pb2.AddExamplesResponse.OUTCOME_REJECTED


@pytest.fixture
def keeping(store: ModelStore) -> Iterator[LiveServer]:
    """A server that keeps all that it is asked."""
    with LiveServer(store, keep_requests=1.0) as live:
        yield live


def label(client: Client, image: bytes, text: str, **fields: str) -> retraining_pb2.AddExamplesResponse:
    (answer,) = client.send_examples([retraining_pb2.AddExamplesRequest(image=image, label=text, **fields)])
    return answer


def kept(live: LiveServer, count: int) -> None:
    wait_until(lambda: live.metric("regraft_kept_requests_total", outcome="kept") == count)


def test_examples_are_listed_by_hash_all_or_those_of_a_label(client: Client) -> None:
    sent = [(picture("grey", n), "grey") for n in range(3)] + [(picture("red", 50), "red")]
    list(client.add_examples(sent, source="a test"))

    found = list(client.list_examples())

    assert [example.sha256 for example in found] == sorted(image_hash(image) for image, _ in sent)
    assert {example.source for example in found} == {"a test"}
    assert all(not example.image for example in found)
    (red,) = client.list_examples(label="red", with_images=True)
    assert red.image == picture("red", 50)


def test_examples_come_in_pages_that_every_client_takes(client: Client, live: LiveServer) -> None:
    sent = [(picture("grey", n), "grey") for n in range(5)] + [(picture("red", 50), "red")]
    list(client.add_examples(sent))
    hashes = sorted(image_hash(image) for image, label in sent if label == "grey")
    with grpc.insecure_channel(live.target) as channel:
        stub, asked = ExamplesStub(channel), ListExamplesRequest(label="grey", page_size=2)
        pages = [stub.ListExamples(asked)]
        while pages[-1].next_page_token:
            asked.page_token = pages[-1].next_page_token
            pages.append(stub.ListExamples(asked))

        asked.label, asked.page_token = "red", pages[0].next_page_token
        with pytest.raises(grpc.RpcError, match="page_token: it belongs to another request"):
            stub.ListExamples(asked)

    assert [[example.sha256 for example in page.examples] for page in pages] == [hashes[:2], hashes[2:4], hashes[4:]]


def test_a_page_of_pictures_ends_where_a_client_would_take_no_more(client: Client, live: LiveServer) -> None:
    bulk = [encode_png(np.random.default_rng(n).integers(0, 256, (700, 700, 3), np.uint8)) for n in range(3)]
    list(client.add_examples((image, "noise") for image in bulk))
    assert all(1_000_000 < len(image) < 2_000_000 for image in bulk)

    with grpc.insecure_channel(live.target) as channel:
        page = ExamplesStub(channel).ListExamples(ListExamplesRequest(with_images=True))

    assert len(page.examples) == 2
    assert page.next_page_token
    assert {example.image for example in client.list_examples(with_images=True)} == {*bulk}


def test_a_change_that_goes_by_another_state_of_the_example_is_refused(client: Client) -> None:
    seen = client.get_example(label(client, picture("grey"), "grey").sha256).example
    changed = client.relabel_example(seen.sha256, "silver", etag=seen.etag)
    assert changed.etag == client.get_example(seen.sha256).example.etag != seen.etag

    changes: list[Callable[[], object]] = [
        lambda: client.relabel_example(seen.sha256, "red", etag=seen.etag),
        lambda: client.remove_example(seen.sha256, etag=seen.etag),
        lambda: client.release_example(seen.sha256, etag=seen.etag),
    ]
    for change in changes:
        with pytest.raises(RemoteError, match=r"etag: .* has changed since") as failure:
            change()
        assert failure.value.code == "FAILED_PRECONDITION"
    assert client.get_example(seen.sha256).example == changed


def test_a_label_from_a_mac_is_listed_and_found_as_the_one_that_it_is(client: Client) -> None:
    mac = unicodedata.normalize("NFD", "Möwe")
    assert mac != "Möwe"
    sha256 = label(client, picture("grey"), mac).sha256

    assert label(client, picture("grey"), "Möwe").outcome == retraining_pb2.AddExamplesResponse.OUTCOME_DUPLICATE
    for text in ("Möwe", mac):
        assert [example.sha256 for example in client.list_examples(label=text)] == [sha256]
        assert client.relabel_example(sha256, text).label == "Möwe"


def test_an_example_shows_every_label_it_ever_had(client: Client) -> None:
    sha256 = label(client, picture("grey"), "grey", annotator="ada", request_id="r1", source="a camera").sha256
    client.relabel_example(sha256[:16], "silver", annotator="grace")

    found = client.get_example(sha256[:10], with_image=True)

    assert (found.example.sha256, found.example.label, found.example.image) == (sha256, "silver", picture("grey"))
    assert [(entry.label, entry.annotator, entry.request_id) for entry in found.history] == [
        ("grey", "ada", "r1"),
        ("silver", "grace", ""),
    ]
    assert [entry.caller for entry in found.history] == ["ipv4:127.0.0.1"] * 2


def test_a_removed_example_is_listed_no_more_but_its_history_tells_who_removed_it(client: Client) -> None:
    sha256 = label(client, picture("grey"), "grey").sha256

    assert client.remove_example(sha256, why="blurred", annotator="ada").label == "grey"

    assert list(client.list_examples()) == []
    found = client.get_example(sha256[:12], with_image=True)
    assert (found.example.sha256, found.example.label, found.example.image) == (sha256, "", picture("grey"))
    removal = found.history[-1]
    assert (removal.label, removal.source, removal.annotator) == ("", "blurred", "ada")
    assert removal.caller == "ipv4:127.0.0.1"
    with pytest.raises(RemoteError, match="no example") as failure:
        client.remove_example(sha256)
    assert failure.value.code == "NOT_FOUND"


def test_a_removed_example_comes_back_when_it_is_relabelled(client: Client) -> None:
    sha256 = label(client, picture("grey"), "grey", source="a camera").sha256
    client.remove_example(sha256)

    back = client.relabel_example(sha256[:12], "silver")

    (listed,) = client.list_examples()
    assert (listed.sha256, listed.label, listed.etag) == (back.sha256, "silver", back.etag)
    assert (back.label, back.source) == ("silver", "a camera")


def test_beyond_its_quota_a_caller_can_neither_relabel_nor_remove(store: ModelStore) -> None:
    with LiveServer(store, labels_per_hour=2) as live:
        sha256 = label(live.client, picture("grey"), "grey").sha256
        live.client.relabel_example(sha256, "silver")

        for change in (live.client.remove_example, lambda sha256: live.client.relabel_example(sha256, "red")):
            with pytest.raises(RemoteError, match=r"quota: ipv4:127\.0\.0\.1 set 2 labels within an hour") as failure:
                change(sha256)
            assert failure.value.code == "RESOURCE_EXHAUSTED"
        assert live.client.get_example(sha256).example.label == "silver"


def test_a_client_with_a_retry_policy_hears_of_its_quota_at_once_and_when_the_next_label_fits(
    store: ModelStore,
) -> None:
    """Hear of a quota at once.

    Told to wait for an hour, gRPC would wait for the deadline, and say nothing of it.
    """
    options = retrying("RESOURCE_EXHAUSTED", first_s=0.1, most_s=1.0)
    with LiveServer(store, labels_per_hour=1) as live, grpc.insecure_channel(live.target, options) as channel:
        sha256 = label(live.client, picture("grey"), "grey").sha256
        with pytest.raises(grpc.RpcError) as failure:
            ExamplesStub(channel).RemoveExample(RemoveExampleRequest(sha256=sha256), timeout=PATIENCE_S)

        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        told: Any = failure.value.trailing_metadata()  # gRPC's own type is none of pairs
        assert 3500 < int(dict(told)["retry-after"]) <= 3600
        assert live.metric("regraft_requests_total", method="RemoveExample") == 1


@pytest.mark.parametrize("text", ["", "x" * 10_000, "a\0b", "../up"], ids=["empty", "10 kB", "control", "path"])
def test_no_example_gets_a_label_that_is_none(client: Client, text: str) -> None:
    sha256 = label(client, picture("grey"), "grey").sha256

    with pytest.raises(RemoteError, match="label") as failure:
        client.relabel_example(sha256, text)

    assert failure.value.code == "INVALID_ARGUMENT"
    assert client.get_example(sha256).example.label == "grey"


def test_what_was_served_can_be_labelled_by_its_request_alone(store: ModelStore, keeping: LiveServer) -> None:
    answer = keeping.client.classify(picture("grey"))
    kept(keeping, 1)

    labelled = label(keeping.client, b"", "grey", request_id=answer.request_id)

    assert (labelled.outcome, labelled.sha256) == (ACCEPTED, image_hash(picture("grey")))
    examples = ExamplesStore(store.root / ".examples")
    assert examples.image_file(labelled.sha256).read_bytes() == picture("grey")
    assert examples.labels.history("colours", labelled.sha256)[0].request_id == answer.request_id
    examples.close()


def test_a_request_that_was_not_kept_needs_the_picture(client: Client) -> None:
    answer = client.classify(picture("grey"))

    refused = label(client, b"", "grey", request_id=answer.request_id)

    assert refused.outcome == REJECTED
    assert "was not kept: send the picture itself" in refused.reason
    assert label(client, picture("grey"), "grey", request_id=answer.request_id).outcome == ACCEPTED
    assert (
        "neither a picture, nor the sha256 of one without a label, nor the request_id"
        in label(client, b"", "grey").reason
    )


def test_every_prediction_has_a_name_of_its_own(client: Client) -> None:
    first, second = client.classify(picture("red")), client.classify(picture("red"))

    assert len({first.request_id, second.request_id, ""}) == 3


def test_what_was_served_is_proposed_until_it_is_labelled(keeping: LiveServer) -> None:
    answers = {keeping.client.classify(picture("grey", n)).request_id: n for n in range(6)}
    kept(keeping, 6)

    found = list(keeping.client.suggest(with_images=True))

    assert {suggestion.request_id for suggestion in found} <= answers.keys()
    assert any(suggestion.reason == Suggestion.REASON_RANDOM for suggestion in found)
    assert all(suggestion.image == picture("grey", answers[suggestion.request_id]) for suggestion in found)
    for suggestion in found:
        label(keeping.client, b"", "grey", request_id=suggestion.request_id)
    left = list(keeping.client.suggest())
    assert not {suggestion.request_id for suggestion in left} & {suggestion.request_id for suggestion in found}


def test_without_kept_requests_nothing_is_proposed(client: Client) -> None:
    assert list(client.suggest()) == []


def test_too_many_suggestions_cannot_be_asked_for(client: Client) -> None:
    with pytest.raises(RemoteError, match="count: 100000; the most is 1000"):
        list(client.suggest(100_000))


def test_an_example_in_quarantine_is_listed_with_the_reason_and_released(client: Client, store: ModelStore) -> None:
    sha256 = label(client, picture("grey", 1), "grey").sha256
    label(client, picture("grey", 2), "grey")
    with closing(open_examples(store.root)) as examples:
        why = "likely wrong: called grey, read as red (0.98)"
        examples.labels.quarantine(client.list_models()[0].name, {sha256: ("grey", why)})

    (found,) = client.list_examples(quarantined=True)
    assert (found.sha256, found.quarantine) == (sha256, why)
    released = client.release_example(sha256[:12], annotator="ada")

    assert (released.label, released.quarantine, released.vouched_by) == ("grey", "", "ada")
    assert list(client.list_examples(quarantined=True)) == []
    last = client.get_example(sha256).history[-1]
    assert (last.label, last.annotator, last.source) == ("grey", "ada", "released from quarantine")


def test_what_is_not_in_quarantine_cannot_be_released(client: Client) -> None:
    sha256 = label(client, picture("grey"), "grey").sha256

    with pytest.raises(RemoteError, match="is not in quarantine") as failure:
        client.release_example(sha256)

    assert failure.value.code == "FAILED_PRECONDITION"
