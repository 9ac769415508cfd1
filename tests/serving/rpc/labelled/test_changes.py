import pytest

from regraft.client.client import Client, RemoteError
from regraft.label_rules import image_hash
from regraft.stores.models import ModelStore
from regraft.v1.examples_pb2 import ListExamplesRequest
from tests.live_server import LiveServer
from tests.serving.conftest import AuditLines
from tests.tiny import picture
from tests.waiting import wait_until

GREYS = [picture("grey", number) for number in range(4)]
HASHES = [image_hash(data) for data in GREYS]


@pytest.fixture
def greys(client: Client) -> Client:
    """A client of a server with four grey examples."""
    list(client.add_examples((data, "grey") for data in GREYS))
    return client


def labels(client: Client) -> dict[str, int]:
    found = [example.label for example in client.list_examples()]
    return {label: found.count(label) for label in found}


def test_many_examples_are_relabelled_removed_and_restored_and_the_audit_says_so(
    greys: Client, audit_lines: AuditLines
) -> None:
    assert greys.relabel_examples(HASHES[:3], "silver", annotator="ada").changed == 3
    assert greys.remove_examples(HASHES, why="all wrong").changed == 4
    assert labels(greys) == {}
    restored = greys.restore_examples(HASHES)

    assert (restored.changed, restored.unchanged) == (4, 0)
    assert labels(greys) == {"silver": 3, "grey": 1}
    assert greys.get_example(HASHES[0]).history[1].annotator == "ada"
    effects = [(line["rpc"].rpartition("/")[2], line["effect"]) for line in audit_lines()]
    told = [(rpc, effect["examples"]) for rpc, effect in effects if "examples" in effect]
    assert told == [("RelabelExamples", 3), ("RemoveExamples", 4), ("RestoreExamples", 4)]


def test_one_unknown_hash_among_many_changes_nothing(greys: Client) -> None:
    with pytest.raises(RemoteError, match="nothing was changed") as refusal:
        greys.relabel_examples([*HASHES, "0" * 64], "silver")
    assert refusal.value.code == "NOT_FOUND"
    assert labels(greys) == {"grey": 4}


def test_ten_thousand_hashes_fit_a_message_and_one_more_is_refused(shared: LiveServer) -> None:
    many = [f"{number:064x}" for number in range(10_001)]
    with pytest.raises(RemoteError, match="of 10000 there are 10000 not"):
        shared.client.remove_examples(many[:-1])
    with pytest.raises(RemoteError, match="sha256: 10001 hashes; a change is of 1 to 10000"):
        shared.client.remove_examples(many)


def test_a_server_that_takes_no_new_labels_takes_none_of_many(store: ModelStore) -> None:
    with LiveServer(store, labels="closed") as live:
        list(live.client.add_examples([(GREYS[0], "red")]))
        with pytest.raises(RemoteError, match="this server takes no new ones"):
            live.client.relabel_examples(HASHES[:1], "silver")
        assert live.client.relabel_examples(HASHES[:1], "blue").changed == 1
        live.client.rename_label("blue", "azure")
        with pytest.raises(RemoteError, match="this server takes no new ones"):
            live.client.relabel_examples(HASHES[:1], "blue")
        assert live.client.relabel_examples(HASHES[:1], "azure").unchanged == 1, "it is known by its new name"


def test_many_at_once_count_one_by_one_towards_the_quota(store: ModelStore) -> None:
    with LiveServer(store, labels_per_hour=6) as live:
        list(live.client.add_examples((data, "grey") for data in GREYS))
        with pytest.raises(RemoteError, match="quota") as refusal:
            live.client.remove_examples(HASHES[:3])
        assert refusal.value.code == "RESOURCE_EXHAUSTED"
        assert live.client.remove_examples(HASHES[:2]).changed == 2


def test_a_label_is_renamed_merged_and_removed_and_predictions_follow(greys: Client, audit_lines: AuditLines) -> None:
    red = picture("red", 100)
    list(greys.add_examples([(red, "red")]))
    renamed = greys.rename_label("red", "crimson", annotator="ada", why="a better word")

    assert (renamed.change.new_label, renamed.change.why, renamed.examples) == ("crimson", "a better word", 1)
    assert greys.rename_label("red", "crimson").change == renamed.change, "asked for again"

    def answered_by_its_name() -> bool:
        (page,) = greys.example_pages(label="crimson", outcome=ListExamplesRequest.OUTCOME_RIGHT)
        return [each.prediction.label for each in page.examples] == ["crimson"]

    wait_until(answered_by_its_name)
    with pytest.raises(RemoteError, match="'green' is there already") as refusal:
        greys.rename_label("grey", "green")
    assert refusal.value.code == "FAILED_PRECONDITION"
    assert greys.rename_label("grey", "green", merge=True).examples == 4
    assert greys.remove_label("green", why="no use").examples == 4
    assert labels(greys) == {"crimson": 1}
    effects = [line["effect"] for line in audit_lines() if "new_label" in line["effect"]]
    told = [(effect["label"], effect["new_label"], effect["examples"]) for effect in effects]
    assert told == [("red", "crimson", 1), ("red", "crimson", 1), ("grey", "green", 4), ("green", "", 4)]


@pytest.mark.parametrize(
    ("label", "new_label", "code"), [("red", "red", "INVALID_ARGUMENT"), ("rde", "x", "NOT_FOUND")]
)
def test_a_label_that_is_renamed_is_there_and_its_new_name_is_another(
    shared: LiveServer, label: str, new_label: str, code: str
) -> None:
    with pytest.raises(RemoteError, match="label") as refusal:
        shared.client.rename_label(label, new_label)
    assert refusal.value.code == code
