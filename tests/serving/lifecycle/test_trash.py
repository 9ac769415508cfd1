from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from regraft.errors import ExistsError, NotFoundError, StorageError
from regraft.files import locked
from regraft.label_rules import image_hash
from regraft.model.card import EmbeddingKey
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import Bounds
from regraft.stores.labels import AddOutcome
from regraft.stores.lifecycle.history import Beginning
from regraft.stores.models import ModelStore
from regraft.stores.unlabelled.requests import KeptRequest
from serving.lifecycle.trash import empty_trash
from tests.regraft.stores.conftest import data

KEY = EmbeddingKey("b" * 64, "i" * 64)
LATER = timedelta(days=31)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "store")
    for name in ("cats", "dogs"):
        store.folders.create(name, Beginning("d" * 64, "tiny"), who="Ann", why="")
    return store


@pytest.fixture
def filled(examples_store: ExamplesStore) -> ExamplesStore:
    """Pictures 0 to 9 of cats, 5 to 14 of dogs, and kept requests."""
    for number in range(10):
        examples_store.add("cats", data(number), "tabby")
        examples_store.add("dogs", data(number + 5), "beagle")
    examples_store.embeddings.put(KEY, {image_hash(data(number)): np.ones(3, np.float32) for number in range(15)})
    examples_store.split.keep_sides("cats", {image_hash(data(0)): True})
    examples_store.jobs.create("cats", {}, "Ann")
    for number, model in ((20, "cats"), (20, "dogs"), (21, "cats")):
        kept = KeptRequest(
            f"{model}{number}", model, 1, image_hash(data(number)), "x", 0.5, 0.1, KEY, np.ones(3, np.float32)
        )
        examples_store.requests.keep([(kept, data(number))], Bounds())
    return examples_store


def test_a_model_stays_in_the_trash_for_its_days_with_all_its_pictures(
    store: ModelStore, filled: ExamplesStore
) -> None:
    store.folders.delete("cats", who="Ben", why="")

    assert empty_trash(store, filled, 30, datetime.now(UTC) + timedelta(days=29)) == []

    assert filled.labels.count("cats") == 10
    store.folders.restore("cats", who="Ben", why="")
    assert empty_trash(store, filled, 30, datetime.now(UTC) + LATER) == []
    assert store.names() == ["cats", "dogs"]


def test_what_the_trash_lets_go_of_takes_its_pictures_along_but_for_those_that_another_model_has(
    store: ModelStore, filled: ExamplesStore, tmp_path: Path
) -> None:
    store.folders.delete("cats", who="Ben", why="")

    assert empty_trash(store, filled, 30, datetime.now(UTC) + LATER) == ["cats"]

    kept = {number for number in range(15) if filled.image_file(image_hash(data(number))).exists()}
    assert kept == set(range(5, 15))
    assert set(filled.embeddings.get(KEY, [image_hash(data(number)) for number in range(15)])) == {
        image_hash(data(number)) for number in kept
    }
    assert (filled.labels.count("cats"), filled.labels.count("dogs")) == (0, 10)
    assert (filled.labels.removed("cats"), filled.split.sides("cats"), filled.jobs.list("cats")) == (set(), {}, [])
    assert filled.requests.image(filled.requests.find("dogs20")) == data(20)
    for gone in ("cats20", "cats21"):
        with pytest.raises(NotFoundError):
            filled.requests.find(gone)
    assert not (tmp_path / "examples/requests" / image_hash(data(21))[:2] / image_hash(data(21))).exists()
    store.folders.create("cats", Beginning("d" * 64, "tiny"), who="Ann", why="anew")
    assert filled.labels.in_force("cats") == []


def test_a_removal_that_failed_is_ended_by_the_next(store: ModelStore, filled: ExamplesStore, tmp_path: Path) -> None:
    store.folders.delete("cats", who="Ben", why="")
    first = image_hash(data(0))
    place = tmp_path / "examples/images" / first[:2] / first
    place.unlink()
    (place / "in the way").mkdir(parents=True)  # what cannot be removed as a file

    with pytest.raises(StorageError):
        empty_trash(store, filled, 30, datetime.now(UTC) + LATER)
    assert store.folders.purging() == ["cats"]
    with pytest.raises(ExistsError, match="being removed just now"):
        store.folders.create("cats", Beginning("d" * 64, "tiny"), who="Ann", why="")

    (place / "in the way").rmdir()
    place.rmdir()
    assert empty_trash(store, filled, 30, datetime.now(UTC)) == ["cats"]
    assert filled.labels.count("cats") == 0


def test_of_two_servers_one_empties_the_trash(store: ModelStore, filled: ExamplesStore) -> None:
    store.folders.delete("cats", who="Ben", why="")

    with locked(store.folders.trash / ".purge.lock"):
        assert empty_trash(store, filled, 30, datetime.now(UTC) + LATER) == []

    assert [each.name for each in store.folders.deleted()] == ["cats"]


def test_a_picture_that_goes_with_its_model_while_another_takes_it_is_kept_all_the_same(
    store: ModelStore, filled: ExamplesStore
) -> None:
    store.folders.delete("cats", who="Ben", why="")
    outcomes: list[AddOutcome] = []
    numbers = range(5)  # of cats alone

    def add() -> None:
        outcomes.extend(filled.add("dogs", data(number), "beagle") for number in numbers)

    with ThreadPoolExecutor(2) as pool:
        adding = pool.submit(add)
        removing = pool.submit(empty_trash, store, filled, 30, datetime.now(UTC) + LATER)
        adding.result()
        assert removing.result() == ["cats"]

    assert outcomes == [AddOutcome.ACCEPTED] * 5
    assert all(filled.image_file(image_hash(data(number))).read_bytes() == data(number) for number in numbers)


def test_an_empty_trash_is_no_error(tmp_path: Path, examples_store: ExamplesStore) -> None:
    store = ModelStore(tmp_path / "nowhere")

    assert empty_trash(store, examples_store, 30, datetime.now(UTC)) == []
    assert not store.root.exists()
