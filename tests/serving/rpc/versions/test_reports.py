import json
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest

from regraft.client.client import Client
from regraft.model.artifact import graft
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, REPORT_FILE, REPORT_JSON_FILE, ModelStore
from regraft.v1 import reports_pb2 as pb
from regraft.v1 import reports_pb2_grpc as pb_grpc
from tests.live_server import LiveServer
from tests.serving.refusals import fails_with
from tests.tiny import publish_tiny, tiny_backbone, tiny_card, tiny_features, tiny_head

LABELS = ("red", "green", "blue")
PAGE = b"<!doctype html>" + bytes(range(256)) * 10_000


def publish_confused(store: ModelStore) -> int:
    """Publish a version that takes red for green, with reports."""
    backbone, head = tiny_backbone(), tiny_head(LABELS, 20.0)
    head.weight[[0, 1]] = head.weight[[1, 0]]
    features = tiny_features(backbone, LABELS)

    def write(folder: Path) -> None:
        onnx.save_model(graft(backbone, head, tiny_card(backbone, head, LABELS, "colours")), folder / MODEL_FILE)
        features.save(folder / FEATURES_FILE)
        (folder / REPORT_FILE).write_bytes(PAGE)
        (folder / REPORT_JSON_FILE).write_text('{"name": "colours"}')

    return store.publish("colours", write, who="test", why="confused")


def test_the_report_of_a_version_comes_whole_for_people_and_for_programs(store: ModelStore, client: Client) -> None:
    version = publish_confused(store)

    assert client.get_report(version) == PAGE
    assert json.loads(client.get_report(version, as_json=True)) == {"name": "colours"}


def test_a_version_that_there_is_not_or_without_a_report_is_not_found(client: Client) -> None:
    assert fails_with(lambda: client.get_report(7)).code == "NOT_FOUND"
    without = fails_with(client.get_report)
    assert (without.code, str(without)) == ("NOT_FOUND", "version 1 has no report.html: it was published without one")
    assert fails_with(lambda: client.get_confusion(-1)).code == "INVALID_ARGUMENT"
    assert fails_with(lambda: client.get_report(name="../cats")).code in ("NOT_FOUND", "INVALID_ARGUMENT")


def test_the_pictures_behind_each_cell_of_the_confusion_are_named(store: ModelStore, client: Client) -> None:
    version = publish_confused(store)
    held_out = tiny_features(tiny_backbone(), LABELS).holdout()
    of_label = {
        label: {
            name for name, index in zip(held_out.sha256, held_out.label_index, strict=True) if LABELS[index] == label
        }
        for label in LABELS
    }

    found = client.get_confusion(version)

    assert (found.version, list(found.labels), found.images) == (version, list(LABELS), len(held_out.sha256))
    cells = {(cell.label, cell.answer): set(cell.sha256) for cell in found.cells}
    assert cells == {
        ("red", "green"): of_label["red"],
        ("green", "red"): of_label["green"],
        ("blue", "blue"): of_label["blue"],
    }
    assert found.right == len(of_label["blue"])
    mistakes = client.get_confusion(version, mistakes=True, answer="red", pictures=1)
    assert [(cell.label, cell.answer, cell.images, len(cell.sha256)) for cell in mistakes.cells] == [
        ("green", "red", len(of_label["green"]), 1)
    ]


def test_the_champion_is_told_of_where_no_version_is_named(store: ModelStore, client: Client) -> None:
    publish_confused(store)

    assert (client.get_confusion().version, client.get_confusion().right) == (1, client.get_confusion().images)


def test_cells_come_in_pages_of_one_version_whatever_becomes_champion(store: ModelStore, live: LiveServer) -> None:
    version = publish_confused(store)
    with grpc.insecure_channel(live.target) as channel:
        stub, request = pb_grpc.ReportsStub(channel), pb.GetConfusionRequest(page_size=2)
        first = stub.GetConfusion(request)
        live.client.promote(version)
        second = stub.GetConfusion(pb.GetConfusionRequest(page_size=2, page_token=first.next_page_token))
        with pytest.raises(grpc.RpcError, match="page_token"):
            stub.GetConfusion(pb.GetConfusionRequest(mistakes=True, page_token=first.next_page_token))

    assert [len(first.cells), len(second.cells), second.next_page_token] == [2, 1, ""]
    assert (first.version, second.version) == (1, 1)


def test_a_label_that_the_version_does_not_know_is_refused_by_name(shared: LiveServer) -> None:
    unknown = fails_with(lambda: shared.client.get_confusion(label="cats"))

    assert unknown.code == "INVALID_ARGUMENT"
    assert str(unknown) == "label: the version does not know 'cats'; it has red, green, blue"
    assert fails_with(lambda: shared.client.get_confusion(pictures=1001)).code == "INVALID_ARGUMENT"


def test_a_version_whose_features_are_gone_says_so(store: ModelStore, client: Client) -> None:
    version = publish_tiny(store, sharpness=5.0, promote=False)
    with np.load(store.folder("colours", version) / FEATURES_FILE) as kept:
        assert kept["is_holdout"].any()
    (store.folder("colours", version) / FEATURES_FILE).unlink()

    gone = fails_with(lambda: client.get_confusion(version))

    assert gone.code == "FAILED_PRECONDITION"
    assert "nothing is known of a holdout" in str(gone)
