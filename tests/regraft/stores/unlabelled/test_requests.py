from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from regraft.errors import NotFoundError
from regraft.label_rules import image_hash
from regraft.model.card import EmbeddingKey
from regraft.stores.database.engine import open_database, transaction
from regraft.stores.database.tables import kept_requests
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import Bounds
from regraft.stores.unlabelled.requests import KeptRequest, KeptRequests

KEY = EmbeddingKey("b" * 64, "1" * 64)
MODEL = "colours"


def data(number: int) -> bytes:
    return f"picture {number:04}".encode()


def request(number: int, picture: int | None = None) -> tuple[KeptRequest, bytes]:
    """Return request ``number`` with the picture of that number, or another."""
    image = data(number if picture is None else picture)
    vector = np.array([number, 1.5], np.float32)
    return KeptRequest(f"id{number}", MODEL, 3, image_hash(image), "red", 0.75, 0.25, KEY, vector), image


@pytest.fixture
def requests(examples_store: ExamplesStore) -> KeptRequests:
    return examples_store.requests


def kept_files(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "examples/requests").rglob("*") if path.is_file()}


def test_a_kept_request_is_found_with_its_picture(requests: KeptRequests) -> None:
    kept, image = request(1)

    requests.keep([(kept, image)], Bounds())

    found = requests.find("id1")
    assert found.embedding.tolist() == [1, 1.5]
    assert (found.model, found.version, found.label, found.key) == (MODEL, 3, "red", KEY)
    assert (found.probability, found.novelty) == (0.75, 0.25)
    assert requests.image(found) == image


def test_a_request_that_was_not_kept_says_what_to_do(requests: KeptRequests) -> None:
    with pytest.raises(NotFoundError, match="request 'id7' was not kept: send the picture itself"):
        requests.find("id7")


def test_the_oldest_are_dropped_beyond_the_number_with_their_pictures(requests: KeptRequests, tmp_path: Path) -> None:
    for number in range(5):
        requests.keep([request(number)], Bounds(pictures=3))

    assert [kept.id for kept in requests.unlabelled(MODEL, KEY)] == ["id2", "id3", "id4"]
    assert kept_files(tmp_path) == {image_hash(data(number)) for number in (2, 3, 4)}


def test_the_oldest_are_dropped_beyond_the_bytes(requests: KeptRequests, tmp_path: Path) -> None:
    for number in range(5):
        requests.keep([request(number)], Bounds(size_bytes=2 * len(data(0))))

    assert [kept.id for kept in requests.unlabelled(MODEL, KEY)] == ["id3", "id4"]
    assert kept_files(tmp_path) == {image_hash(data(number)) for number in (3, 4)}


def test_more_than_2_to_the_31_bytes_are_kept_and_counted(requests: KeptRequests, database: str) -> None:
    huge, unbounded = 3 * 10**9, Bounds(size_bytes=10**12)
    requests.keep([request(number) for number in range(3)], unbounded)
    engine = open_database(database)
    with transaction(engine, "pretend that they are huge") as connection:
        before = huge * (kept_requests.c.number - 1)
        connection.execute(update(kept_requests).values(size_bytes=huge, bytes_before=before))
    engine.dispose()

    requests.keep([request(3)], Bounds(size_bytes=2 * huge + len(data(3))))

    assert [kept.id for kept in requests.unlabelled(MODEL, KEY)] == ["id1", "id2", "id3"]


def test_one_that_is_larger_than_the_bound_is_not_kept(requests: KeptRequests, tmp_path: Path) -> None:
    requests.keep([request(0), request(1)], Bounds(size_bytes=1))

    assert requests.unlabelled(MODEL, KEY) == []
    assert kept_files(tmp_path) == set()


def test_bounds_that_were_lowered_are_reached_a_thousand_at_a_time(requests: KeptRequests) -> None:
    requests.keep([request(number, picture=0) for number in range(1500)], Bounds())

    requests.keep([request(1500, picture=0)], Bounds(pictures=2))
    assert [is_kept(requests, f"id{number}") for number in (999, 1000)] == [False, True]
    requests.keep([request(1501, picture=0)], Bounds(pictures=2))

    assert [is_kept(requests, f"id{number}") for number in (1499, 1500, 1501)] == [False, True, True]


def is_kept(requests: KeptRequests, request_id: str) -> bool:
    try:
        requests.find(request_id)
    except NotFoundError:
        return False
    return True


def test_a_picture_stays_while_a_newer_request_has_it_too(requests: KeptRequests, tmp_path: Path) -> None:
    for number in range(3):
        requests.keep([request(number, picture=0)], Bounds(pictures=1))

    assert requests.image(requests.find("id2")) == data(0)
    assert len(kept_files(tmp_path)) == 1


def test_each_picture_is_proposed_once_by_its_newest_request(requests: KeptRequests) -> None:
    requests.keep([request(1)], Bounds())
    requests.keep([request(2, picture=1)], Bounds())

    assert [kept.id for kept in requests.unlabelled(MODEL, KEY)] == ["id2"]


def test_what_has_a_label_is_proposed_no_more(examples_store: ExamplesStore) -> None:
    examples_store.requests.keep([request(1), request(2)], Bounds())

    examples_store.add(MODEL, data(1), "red")

    assert [kept.id for kept in examples_store.requests.unlabelled(MODEL, KEY)] == ["id2"]


def test_what_another_backbone_embedded_is_not_proposed(requests: KeptRequests) -> None:
    requests.keep([request(1)], Bounds())

    assert requests.unlabelled(MODEL, EmbeddingKey("c" * 64, "1" * 64)) == []
    assert requests.unlabelled("another", KEY) == []


def test_a_picture_that_vanished_is_as_one_that_was_not_kept(requests: KeptRequests, tmp_path: Path) -> None:
    requests.keep([request(1)], Bounds())
    sha256 = image_hash(data(1))
    (tmp_path / "examples/requests" / sha256[:2] / sha256).unlink()

    with pytest.raises(NotFoundError, match="was not kept"):
        requests.image(requests.find("id1"))


def test_an_example_outlives_the_request_that_it_came_from(examples_store: ExamplesStore) -> None:
    examples_store.requests.keep([request(1)], Bounds())
    examples_store.add(MODEL, data(1), "red")

    examples_store.requests.keep([request(2)], Bounds(pictures=1))

    assert examples_store.image_file(image_hash(data(1))).read_bytes() == data(1)
