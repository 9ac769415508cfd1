from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from regraft.errors import InvalidRequestError, NotFoundError, StorageError
from regraft.label_rules import image_hash
from regraft.model.card import EmbeddingKey
from regraft.stores.database.engine import open_database, transaction
from regraft.stores.database.tables import examples
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import Bounds
from regraft.stores.unlabelled.pool import NewPicture, PicturePool, PoolOutcome, Usage
from tests.regraft.stores.conftest import MODEL, data

ACCEPTED, DUPLICATE, FULL = PoolOutcome.ACCEPTED, PoolOutcome.DUPLICATE, PoolOutcome.FULL
KEY = EmbeddingKey("b" * 64, "1" * 64)
WIDE = Bounds()
SIZE = len(data(0))


@pytest.fixture
def pool(examples_store: ExamplesStore) -> PicturePool:
    return examples_store.pool


def add(pool: PicturePool, numbers: Sequence[int], bounds: Bounds = WIDE, model: str = MODEL) -> list[PoolOutcome]:
    return pool.add(model, [NewPicture(data(number), "a camera") for number in numbers], bounds, "ada")


def hashes(pool: PicturePool, model: str = MODEL) -> set[str]:
    return {picture.sha256 for picture in pool.page(model, most=1000)}


def named(*numbers: int) -> set[str]:
    return {image_hash(data(number)) for number in numbers}


def files(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "examples/pictures").rglob("*") if path.is_file()}


def test_a_picture_without_a_label_is_kept_with_its_bytes(pool: PicturePool) -> None:
    assert add(pool, [1]) == [ACCEPTED]

    found = pool.find(MODEL, image_hash(data(1)))
    assert (found.source, found.size_bytes) == ("a camera", SIZE)
    assert pool.file(found.sha256).read_bytes() == data(1)
    assert pool.usage(MODEL) == Usage(1, SIZE)


def test_the_same_picture_is_kept_once_in_a_batch_too(pool: PicturePool) -> None:
    assert add(pool, [1, 2, 1]) == [ACCEPTED, ACCEPTED, DUPLICATE]
    assert add(pool, [2]) == [DUPLICATE]
    assert pool.usage(MODEL).pictures == 2


def test_a_picture_that_has_a_label_is_not_kept_a_second_time(
    examples_store: ExamplesStore, pool: PicturePool, tmp_path: Path
) -> None:
    examples_store.add(MODEL, data(1), "red")

    assert add(pool, [1]) == [PoolOutcome.LABELLED]
    assert files(tmp_path) == set()
    assert add(pool, [1], model="another") == [ACCEPTED]


def test_beyond_the_number_nothing_is_kept_nor_dropped(pool: PicturePool, tmp_path: Path) -> None:
    assert add(pool, [1, 2, 3], Bounds(pictures=2)) == [ACCEPTED, ACCEPTED, FULL]
    assert add(pool, [4, 1], Bounds(pictures=2)) == [FULL, DUPLICATE]

    assert hashes(pool) == files(tmp_path) == named(1, 2)


def test_beyond_the_bytes_likewise_and_what_is_smaller_still_fits(pool: PicturePool) -> None:
    bounds = Bounds(size_bytes=2 * SIZE + 1)

    assert add(pool, [1, 2, 3], bounds) == [ACCEPTED, ACCEPTED, FULL]
    assert pool.add(MODEL, [NewPicture(b"x")], bounds) == [ACCEPTED]


def test_a_quota_is_each_models_own(pool: PicturePool) -> None:
    assert add(pool, [1], Bounds(pictures=1)) == [ACCEPTED]

    assert add(pool, [2], Bounds(pictures=1), model="another") == [ACCEPTED]
    assert hashes(pool) == named(1)


def test_a_picture_leaves_the_pool_once_it_has_a_label(
    examples_store: ExamplesStore, pool: PicturePool, tmp_path: Path
) -> None:
    add(pool, [1, 2])

    examples_store.add(MODEL, data(1), "red")

    assert hashes(pool) == files(tmp_path) == named(2)
    assert examples_store.image_file(image_hash(data(1))).read_bytes() == data(1)
    with pytest.raises(NotFoundError, match="without a label: send the picture itself"):
        pool.find(MODEL, image_hash(data(1)))


def test_what_a_crash_left_behind_its_label_is_seen_no_more_and_dropped_at_the_next_opening(
    tmp_path: Path, database: str
) -> None:
    store = ExamplesStore(tmp_path / "examples", database)
    add(store.pool, [1, 2])
    engine = open_database(database)
    with transaction(engine, "label, and die") as connection:
        row = {"model": MODEL, "sha256": image_hash(data(1)), "label": "red", "source": "", "added_at": ""}
        connection.execute(examples.insert(), row)
    engine.dispose()
    assert hashes(store.pool) == named(2)
    store.close()

    store = ExamplesStore(tmp_path / "examples", database)

    assert files(tmp_path) == named(2)
    assert store.pool.usage(MODEL).pictures == 1
    store.close()


def test_what_is_removed_is_told_and_its_bytes_go(pool: PicturePool, tmp_path: Path) -> None:
    add(pool, [1, 2, 3])

    assert set(pool.remove(MODEL, named(1, 2, 9))) == named(1, 2)
    assert pool.remove(MODEL, named(1)) == []
    assert hashes(pool) == files(tmp_path) == named(3)
    assert add(pool, [1]) == [ACCEPTED]
    assert files(tmp_path) == named(1, 3)


def test_bytes_stay_while_another_model_has_the_picture_too(pool: PicturePool, tmp_path: Path) -> None:
    add(pool, [1])
    add(pool, [1], model="another")

    pool.remove(MODEL, named(1))

    assert hashes(pool, "another") == files(tmp_path) == named(1)


def test_a_picture_that_lost_its_file_is_mended_by_sending_it_again(pool: PicturePool) -> None:
    add(pool, [1])
    pool.file(image_hash(data(1))).unlink()

    assert add(pool, [1]) == [DUPLICATE]
    assert pool.file(image_hash(data(1))).read_bytes() == data(1)


def test_whatever_is_in_the_pool_has_its_bytes_while_others_remove_it(pool: PicturePool) -> None:
    start = Barrier(4)

    def send_and_remove(thread: int) -> list[PoolOutcome]:
        start.wait()
        outcomes = []
        for _ in range(4):
            outcomes += add(pool, [1, 2], model=f"model {thread}")
            if thread % 2:
                pool.remove(f"model {thread}", named(1, 2))
        return outcomes

    with ThreadPoolExecutor(4) as threads:
        outcomes = Counter(outcome for some in threads.map(send_and_remove, range(4)) for outcome in some)

    assert outcomes == {ACCEPTED: 2 * 2 + 2 * 8, DUPLICATE: 2 * 6}
    for model in ("model 0", "model 2"):
        assert hashes(pool, model) == named(1, 2)
    assert {pool.file(sha256).read_bytes() for sha256 in named(1, 2)} == {data(1), data(2)}


def test_pictures_are_listed_newest_first_a_page_at_a_time(pool: PicturePool) -> None:
    for number in range(5):
        add(pool, [number])

    first = pool.page(MODEL, most=2)
    rest = pool.page(MODEL, most=9, before=first[-1].number)

    assert [picture.sha256 for picture in first + rest] == [image_hash(data(number)) for number in range(4, -1, -1)]


def test_pictures_without_an_embedding_come_in_their_order_from_a_place_on(
    examples_store: ExamplesStore, pool: PicturePool
) -> None:
    add(pool, [1, 2, 3, 4])
    examples_store.embeddings.put(KEY, {image_hash(data(2)): np.zeros(2, np.float32)})
    examples_store.add(MODEL, data(4), "red")

    missing = pool.without_embedding(MODEL, KEY, 10)
    assert list(missing) == [image_hash(data(number)) for number in (1, 3)]
    assert pool.without_embedding(MODEL, KEY, 10, after=missing[image_hash(data(1))]).keys() == named(3)
    assert pool.states(MODEL, KEY) == {"embedded": 1, "waiting": 2}


@pytest.mark.parametrize("start", ["", "5", "f" * 64])
def test_candidates_begin_at_any_hash_and_go_round(
    examples_store: ExamplesStore, pool: PicturePool, start: str
) -> None:
    numbers = range(6)
    add(pool, numbers)
    vectors = {image_hash(data(number)): np.array([number, 1], np.float32) for number in numbers}
    examples_store.embeddings.put(KEY, vectors)

    found = pool.candidates(MODEL, KEY, 10, start)

    assert list(found) == sorted(vectors, key=lambda sha256: (sha256 < start, sha256))
    assert all((found[sha256] == vectors[sha256]).all() for sha256 in vectors)
    assert list(pool.candidates(MODEL, KEY, 4, start)) == list(found)[:4]
    assert pool.candidates(MODEL, EmbeddingKey("c" * 64, "1" * 64), 10, start) == {}


def test_a_source_that_is_no_text_is_refused_and_nothing_is_kept(pool: PicturePool) -> None:
    with pytest.raises(InvalidRequestError, match="source: control characters"):
        pool.add(MODEL, [NewPicture(data(1)), NewPicture(data(2), "a\0b")], WIDE)

    assert pool.page(MODEL, most=10) == []


def test_a_disk_that_refuses_is_a_storage_error_and_nothing_is_kept(pool: PicturePool, tmp_path: Path) -> None:
    (tmp_path / "examples/pictures").write_bytes(b"in the way")

    with pytest.raises(StorageError, match="cannot keep the image"):
        add(pool, [1])

    assert pool.page(MODEL, most=10) == []
