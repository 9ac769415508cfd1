"""Neighbours, map and explanations over gRPC."""

import io
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import pytest
from PIL import Image

from regraft.client.client import Client, RemoteError
from regraft.image.encode import encode_png
from regraft.image.occlusion import CELLS
from regraft.label_rules import image_hash
from regraft.stores.models import FEATURES_FILE, ModelStore
from regraft.v1 import examples_pb2 as pb
from regraft.v1 import pictures_pb2
from tests.live_server import LiveServer
from tests.serving.refusals import fails_with
from tests.tiny import picture
from tests.waiting import wait_until


def test_the_neighbours_of_a_picture_are_of_its_kind_and_say_where_they_are_from(shared: LiveServer) -> None:
    found = shared.client.neighbours(image=picture("red", 700), count=8)

    assert found.answer == "red"
    assert [each.label for each in found.neighbours] == ["red"] * 8
    similarity = [each.similarity for each in found.neighbours]
    assert similarity == sorted(similarity, reverse=True)
    assert 0.5 < similarity[-1] <= similarity[0] <= 1
    assert {each.source for each in found.neighbours} == {"first training data"}
    assert all(each.is_learned for each in found.neighbours)
    assert {each.split for each in found.neighbours} <= {pb.SPLIT_TRAINING, pb.SPLIT_HOLDOUT}


def test_a_labelled_picture_is_not_its_own_neighbour(shared: LiveServer) -> None:
    own = image_hash(picture("green", 3))

    found = shared.client.neighbours(sha256=own[:20])

    assert len(found.neighbours) == 10
    assert own not in {each.sha256 for each in found.neighbours}
    assert found.answer == "green"


def test_a_picture_that_was_just_labelled_is_a_neighbour_once_it_is_embedded(client: Client) -> None:
    new = picture("blue", 800)
    [*client.add_examples([(new, "teal")], source="a test")]

    def nearest() -> pb.NeighboursResponse.Neighbour:
        return client.neighbours(image=new, count=1).neighbours[0]

    wait_until(lambda: nearest().sha256 == image_hash(new))
    assert (nearest().label, nearest().source, nearest().is_learned) == ("teal", "a test", False)
    assert nearest().split == pb.SPLIT_UNDECIDED
    assert nearest().similarity == pytest.approx(1, abs=1e-5)


def test_a_picture_without_a_label_has_neighbours_and_an_explanation(client: Client) -> None:
    data = picture("green", 870)
    client.add_pictures_batch([pictures_pb2.AddPicturesRequest(image=data)])
    sha256 = image_hash(data)

    wait_until(lambda: is_embedded(client, sha256))
    assert {each.label for each in client.neighbours(sha256=sha256, count=5).neighbours} == {"green"}
    assert client.explain(sha256=sha256).label == "green"


def is_embedded(client: Client, sha256: str) -> bool:
    try:
        client.neighbours(sha256=sha256)
    except RemoteError as error:
        return error.code != "FAILED_PRECONDITION"
    return True


def test_the_map_has_every_labelled_picture_and_puts_a_class_together(shared: LiveServer) -> None:
    first, *others = shared.client.map()
    points = [point for message in others for point in message.points]

    assert (first.axes_version, list(first.labels), first.not_embedded) == (1, ["blue", "green", "red"], 0)
    assert len({point.sha256 for point in points}) == len(points) == 90
    places = np.array([(point.x, point.y) for point in points])
    label = np.array([point.label_index for point in points])
    means = np.array([places[label == index].mean(axis=0) for index in range(3)])
    nearest = np.linalg.norm(places[:, None] - means, axis=2).argmin(axis=1)
    assert (nearest == label).mean() > 0.95


def test_the_map_does_not_turn_when_pictures_come(live: LiveServer, client: Client) -> None:
    before = {point.sha256: (point.x, point.y) for message in client.map() for point in message.points}
    [*client.add_examples([(picture("grey", number), "grey") for number in range(12)])]

    def places() -> dict[str, tuple[float, float]]:
        return {point.sha256: (point.x, point.y) for message in client.map() for point in message.points}

    wait_until(lambda: len(places()) == len(before) + 12)
    now = places()
    assert {sha256: now[sha256] for sha256 in before} == before
    assert live.server.models.get("colours").version == 1


def test_an_explanation_points_at_what_the_answer_depends_on(shared: LiveServer) -> None:
    pixels = np.full((8, 8, 3), (40, 40, 200), np.uint8)
    pixels[:4, 4:] = (40, 200, 40)

    explained = shared.client.explain(image=encode_png(pixels), label="green")

    heat = np.array(explained.heat).reshape(CELLS, CELLS)
    assert (explained.version, explained.label, explained.cells) == (1, "green", CELLS)
    assert heat[: CELLS // 2, CELLS // 2 :].mean() > 0 > heat[CELLS // 2 :, : CELLS // 2].mean()
    assert Image.open(io.BytesIO(explained.overlay)).format == "PNG"


def test_a_labelled_picture_is_explained_by_its_hash_where_its_bytes_are_kept(client: Client) -> None:
    kept = picture("red", 850)
    [*client.add_examples([(kept, "red")])]

    explained = client.explain(sha256=image_hash(kept))

    assert explained.label == "red"
    assert fails_with(client.explain, sha256=image_hash(picture("red", 1))).code == "NOT_FOUND"


def test_answers_are_called_as_their_labels_are_now(client: Client) -> None:
    client.rename_label("red", "crimson")

    found = client.neighbours(image=picture("red", 700), count=3)
    explained = client.explain(image=picture("red", 700), label="crimson")

    assert [found.answer, explained.label, *(each.label for each in found.neighbours)] == ["crimson"] * 5
    assert fails_with(client.explain, image=picture("red", 700), label="red").code == "INVALID_ARGUMENT"


def test_explanations_that_wait_are_bounded(live: LiveServer) -> None:
    with ThreadPoolExecutor(10) as pool, live.busy_lanes():
        calls = [pool.submit(live.client.explain, image=picture("red", number)) for number in range(10)]
        refused = next(as_completed(calls))

    with pytest.raises(RemoteError, match="too many explanations") as caught:
        refused.result()
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert {call.result().label for call in calls if call is not refused} == {"red"}


@pytest.mark.parametrize("rpc", ["neighbours", "explain"])
def test_a_request_names_one_picture_that_there_is(shared: LiveServer, rpc: str) -> None:
    call = getattr(shared.client, rpc)

    assert fails_with(call).code == "INVALID_ARGUMENT"
    assert fails_with(call, image=b"x", sha256="ab").code == "INVALID_ARGUMENT"
    assert fails_with(call, image=b"no picture").code == "INVALID_ARGUMENT"
    assert fails_with(call, sha256="f" * 64).code == "NOT_FOUND"
    assert fails_with(call, image=picture("red"), name="nobody").code == "NOT_FOUND"


def test_a_label_that_there_is_not_and_too_many_neighbours_are_refused(shared: LiveServer) -> None:
    assert fails_with(shared.client.explain, image=picture("red"), label="teal").code == "INVALID_ARGUMENT"
    assert fails_with(shared.client.neighbours, image=picture("red"), count=101).code == "INVALID_ARGUMENT"


def test_a_version_whose_features_are_gone_is_said(store: ModelStore) -> None:
    with LiveServer(store) as live:
        (store.folder("colours", 1) / FEATURES_FILE).unlink()

        assert fails_with(live.client.neighbours, image=picture("red")).code == "FAILED_PRECONDITION"
        with pytest.raises(RemoteError, match=FEATURES_FILE):
            [*live.client.map()]
