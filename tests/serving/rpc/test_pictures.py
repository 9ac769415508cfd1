from collections import Counter
from contextlib import closing

import pytest

from regraft.client.client import Client, RemoteError
from regraft.client.message_values import word_of
from regraft.label_rules import image_hash
from regraft.stores.examples import open_examples
from regraft.stores.models import ModelStore
from regraft.v1.examples_pb2 import Suggestion
from regraft.v1.pictures_pb2 import AddPicturesRequest, AddPicturesResponse
from regraft.v1.retraining_pb2 import AddExamplesRequest, AddExamplesResponse
from tests.live_server import LiveServer
from tests.tiny import add_tiny_backbone, picture
from tests.waiting import wait_until


def outcome(answer: AddPicturesResponse) -> str:
    return word_of(AddPicturesResponse.Outcome, answer.outcome)


def embedded(live: LiveServer, count: int) -> None:
    with closing(open_examples(live.settings.store)) as examples:
        key = live.server.models.get("colours").key
        wait_until(lambda: examples.pool.states("colours", key) == {"embedded": count, "waiting": 0})


def test_pictures_without_labels_are_kept_and_listed_newest_first(client: Client) -> None:
    sent = [picture("grey", number) for number in range(3)]

    answers = list(client.add_pictures(sent, source="a camera"))

    assert [outcome(answer) for answer in answers] == ["ACCEPTED"] * 3
    (page,) = client.list_pictures(with_images=True)
    assert {each.sha256: each.image for each in page.pictures} == {image_hash(image): image for image in sent}
    assert {each.source for each in page.pictures} == {"a camera"}
    assert (page.total_pictures, page.total_bytes) == (3, sum(map(len, sent)))
    assert list(client.list_examples()) == []


def test_a_message_of_several_is_answered_one_by_one(client: Client) -> None:
    answer = client.send_examples([AddExamplesRequest(image=picture("red"), label="red")])
    assert next(answer).sha256 == image_hash(picture("red"))
    images = [picture("grey", 1), b"no picture", picture("grey", 1), picture("red")]

    answers = client.add_pictures_batch(AddPicturesRequest(image=image) for image in images)

    assert Counter(map(outcome, answers)) == {"ACCEPTED": 1, "DUPLICATE": 1, "REJECTED": 1, "LABELLED": 1}
    assert [outcome(each) for each in answers][1::2] == ["REJECTED", "LABELLED"]
    assert "not a picture" in answers[1].reason
    for count in (0, 257):
        with pytest.raises(RemoteError, match=f"requests: {count} pictures; a message holds 1 to 256"):
            client.add_pictures_batch([AddPicturesRequest(image=b"x")] * count)


def test_beyond_the_quota_pictures_are_refused_with_the_reason_and_none_is_dropped(store: ModelStore) -> None:
    with LiveServer(store, pool_most=2) as live:
        answers = list(live.client.add_pictures(picture("grey", number) for number in range(3)))

        assert sorted(map(outcome, answers)) == ["ACCEPTED", "ACCEPTED", "FULL"]
        (refused,) = (each for each in answers if outcome(each) == "FULL")
        assert "the most are 2 (--pool-most)" in refused.reason
        assert "label some, or remove them, and send this one again" in refused.reason
        kept = [each.sha256 for page in live.client.list_pictures() for each in page.pictures]
        assert len(kept) == 2
        assert live.metric("regraft_unlabelled_total", outcome="full") == 1

        assert live.client.remove_pictures([kept[0], "f" * 64]) == [kept[0]]
        again = live.client.add_pictures([picture("grey", 7)])
        assert [outcome(each) for each in again] == ["ACCEPTED"]


def test_a_picture_is_suggested_labelled_by_its_hash_and_gone(live: LiveServer) -> None:
    list(live.client.add_pictures((picture("grey", number) for number in range(4)), source="a camera"))
    embedded(live, 4)

    found = list(live.client.suggest(with_images=True))
    assert {each.image for each in found} <= {picture("grey", number) for number in range(4)}
    assert all(image_hash(each.image) == each.sha256 and not each.request_id for each in found)
    assert all(each.why and each.label in ("red", "green", "blue") and each.other_label for each in found)
    assert found[-1].reason == Suggestion.REASON_RANDOM

    chosen = found[0].sha256
    (answer,) = live.client.send_examples([AddExamplesRequest(sha256=chosen, label="grey")])

    assert (answer.outcome, answer.sha256) == (AddExamplesResponse.OUTCOME_ACCEPTED, chosen)
    example = live.client.get_example(chosen, with_image=True).example
    assert (example.label, example.source, example.image) == ("grey", "a camera", found[0].image)
    assert chosen not in {each.sha256 for page in live.client.list_pictures() for each in page.pictures}
    assert chosen not in {each.sha256 for each in live.client.suggest()}
    (gone,) = live.client.send_examples([AddExamplesRequest(sha256=chosen, label="red")])
    assert "without a label: send the picture itself" in gone.reason


def test_a_hash_beside_a_picture_has_to_be_its_own(client: Client) -> None:
    requests = [
        AddExamplesRequest(image=picture("grey"), sha256=sha256, label="grey")
        for sha256 in (image_hash(picture("red")), image_hash(picture("grey")))
    ]

    wrong, right = client.send_examples(requests)

    assert wrong.reason.endswith("is not that of the picture; leave one of them out")
    assert right.outcome == AddExamplesResponse.OUTCOME_ACCEPTED


def test_no_retrain_learns_from_pictures_without_labels(client: Client, store: ModelStore) -> None:
    list(client.add_pictures(picture("grey", number) for number in range(3)))

    with closing(open_examples(store.root)) as examples:
        assert examples.labels.in_force("colours") == []
        assert examples.labels.removed("colours") == set()
        assert examples.labels.labelled_since("colours", "2000-01-01T00:00:00") == 0


def test_pages_follow_one_another_and_a_token_of_another_request_is_refused(client: Client) -> None:
    list(client.add_pictures(picture("grey", number) for number in range(5)))
    (whole,) = client.list_pictures()
    hashes = [each.sha256 for each in whole.pictures]

    pages = list(client.list_pictures(page_size=2))

    assert [each.sha256 for page in pages for each in page.pictures] == hashes
    assert [len(page.pictures) for page in pages] == [2, 2, 1]
    with pytest.raises(RemoteError, match="page_token") as failure:
        list(client.list_pictures(with_images=True, page_token=pages[0].next_page_token))
    assert failure.value.code == "INVALID_ARGUMENT"


def test_an_unknown_model_has_no_pictures(client: Client) -> None:
    (answer,) = client.add_pictures([picture("grey")], name="nobody")

    assert outcome(answer) == "REJECTED"
    assert "there is no model 'nobody'" in answer.reason
    for ask in (
        lambda: list(client.list_pictures(name="nobody")),
        lambda: client.remove_pictures(["x"], name="nobody"),
    ):
        with pytest.raises(RemoteError, match="there is no model 'nobody'") as failure:
            ask()
        assert failure.value.code == "NOT_FOUND"


def test_a_removal_of_nothing_is_refused(client: Client) -> None:
    with pytest.raises(RemoteError, match="sha256: 0 hashes; one request has 1 to 10,000"):
        client.remove_pictures([])


def test_a_model_without_a_version_is_told_what_is_typical_and_the_labels_make_its_first_version(
    empty_store: ModelStore,
) -> None:
    add_tiny_backbone(empty_store)
    with LiveServer(empty_store) as live:
        live.client.create_model("flowers", "tiny")
        sent = {picture(colour, number): colour for colour in ("red", "blue") for number in range(6)}
        assert {outcome(answer) for answer in live.client.add_pictures(sent)} == {"ACCEPTED"}
        with closing(open_examples(empty_store.root)) as examples:
            key = live.server.models.held("flowers").key
            wait_until(lambda: examples.pool.states("flowers", key) == {"embedded": 12, "waiting": 0})

        found = list(live.client.suggest(12, with_images=True))

        assert {each.reason for each in found} <= {Suggestion.REASON_TYPICAL, Suggestion.REASON_RANDOM}
        assert {(each.label, each.probability) for each in found} == {("", 0.0)}
        assert {sent[each.image] for each in found} == {"red", "blue"}
        (page,) = live.client.list_pictures()
        labels = [
            AddExamplesRequest(sha256=each.sha256, label=colour)
            for each in page.pictures
            for image, colour in sent.items()
            if image_hash(image) == each.sha256
        ]
        assert all(
            answer.outcome == AddExamplesResponse.OUTCOME_ACCEPTED for answer in live.client.send_examples(labels)
        )
        *_, job = live.client.watch_job(live.client.retrain().id)

        assert job.version == 1, job.message
        assert next(live.client.list_pictures()).total_pictures == 0
