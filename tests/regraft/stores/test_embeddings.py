import hashlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sqlalchemy import Engine

from regraft.errors import StorageError
from regraft.model.artifact import FloatArray
from regraft.model.card import EmbeddingKey
from regraft.model.session import Arithmetic
from regraft.stores.database.engine import open_database, sqlite_url
from regraft.stores.embeddings import EmbeddingCache

KEY = EmbeddingKey(backbone="b" * 64, image_spec="1" * 64)


def test_the_key_names_the_arithmetic_and_that_of_a_cpu_is_what_was_kept_before() -> None:
    keys = {arithmetic: KEY.computed_in(arithmetic) for arithmetic in get_args(Arithmetic)}

    assert keys["cpu"] == KEY
    assert len(set(keys.values())) == len(keys) == 3
    assert {key.backbone for key in keys.values()} == {KEY.backbone}
    assert {len(key.image_spec) for key in keys.values()} == {64}  # what the column of the database has room for


def sha256(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def vector(number: int, size: int = 12) -> FloatArray:
    return np.random.default_rng(number).standard_normal(size).astype(np.float32)


@pytest.fixture
def cache(engine: Engine) -> EmbeddingCache:
    return EmbeddingCache(engine)


@settings(max_examples=30)
@given(
    vectors=st.dictionaries(
        st.integers(0, 10**6).map(sha256),
        hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(allow_nan=False, width=32)),
        max_size=6,
    )
)
def test_what_was_put_comes_back_bit_by_bit(
    vectors: dict[str, FloatArray], tmp_path_factory: pytest.TempPathFactory
) -> None:
    engine = open_database(sqlite_url(tmp_path_factory.mktemp("cache") / "embeddings.sqlite"))
    cache = EmbeddingCache(engine)

    cache.put(KEY, vectors)
    found = cache.get(KEY, vectors)
    engine.dispose()

    assert found.keys() == vectors.keys()
    for name, expected in vectors.items():
        assert found[name].dtype == np.float32
        assert found[name].tobytes() == expected.tobytes()
    engine.dispose()


def test_only_what_is_known_is_returned(cache: EmbeddingCache) -> None:
    cache.put(KEY, {sha256(1): vector(1)})

    assert cache.get(KEY, [sha256(2)]) == {}
    assert cache.get(KEY, []) == {}
    assert list(cache.get(KEY, [sha256(1), sha256(2), sha256(1)])) == [sha256(1)]


@pytest.mark.parametrize(
    "other",
    [EmbeddingKey("c" * 64, KEY.image_spec), EmbeddingKey(KEY.backbone, "2" * 64)],
    ids=["backbone", "image spec"],
)
def test_an_embedding_belongs_to_one_backbone_and_one_image_spec(cache: EmbeddingCache, other: EmbeddingKey) -> None:
    cache.put(KEY, {sha256(1): vector(1)})
    assert cache.get(other, [sha256(1)]) == {}

    cache.put(other, {sha256(1): vector(2)})

    np.testing.assert_array_equal(cache.get(KEY, [sha256(1)])[sha256(1)], vector(1))
    np.testing.assert_array_equal(cache.get(other, [sha256(1)])[sha256(1)], vector(2))


def test_the_first_embedding_of_an_image_stays(cache: EmbeddingCache) -> None:
    cache.put(KEY, {sha256(1): vector(1)})

    cache.put(KEY, {sha256(1): vector(100), sha256(2): vector(2)})  # the same image once more, beside a new one

    found = cache.get(KEY, [sha256(1), sha256(2)])
    np.testing.assert_array_equal(found[sha256(1)], vector(1))
    np.testing.assert_array_equal(found[sha256(2)], vector(2))


def test_thousands_of_hashes_are_asked_for_at_once(cache: EmbeddingCache) -> None:
    vectors = {sha256(number): vector(number, 4) for number in range(2500)}
    cache.put(KEY, vectors)

    found = cache.get(KEY, [sha256(number) for number in range(3000)])

    assert found.keys() == vectors.keys()
    for name, expected in vectors.items():
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("count", [399, 400, 401, 800])
def test_no_hash_is_lost_at_the_edge_of_a_query(cache: EmbeddingCache, count: int) -> None:
    hashes = [sha256(number) for number in range(count)]
    cache.put(KEY, dict.fromkeys(hashes, vector(0)))

    assert set(cache.get(KEY, iter(hashes))) == set(hashes)


def test_putting_nothing_is_nothing(cache: EmbeddingCache) -> None:
    cache.put(KEY, {})

    assert cache.get(KEY, [sha256(1)]) == {}


def test_another_precision_is_kept_as_float32(cache: EmbeddingCache) -> None:
    wide = np.array([0.1, 1e-3], np.float64)

    cache.put(KEY, {sha256(1): wide})  # type: ignore[dict-item] # what a careless caller does

    np.testing.assert_array_equal(cache.get(KEY, [sha256(1)])[sha256(1)], wide.astype(np.float32))


def test_embeddings_survive_reopening(database: str) -> None:
    engine = open_database(database)
    EmbeddingCache(engine).put(KEY, {sha256(1): vector(1)})
    engine.dispose()

    engine = open_database(database)
    found = EmbeddingCache(engine).get(KEY, [sha256(1)])
    engine.dispose()

    np.testing.assert_array_equal(found[sha256(1)], vector(1))


def test_of_threads_that_put_the_same_image_the_first_one_wins_for_all(cache: EmbeddingCache) -> None:
    start = Barrier(8)
    hashes = [sha256(number) for number in range(20)]

    def put_and_get(thread: int) -> dict[str, bytes]:
        start.wait()
        cache.put(KEY, dict.fromkeys(hashes, vector(thread)))
        return {name: found.tobytes() for name, found in cache.get(KEY, hashes).items()}

    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(put_and_get, range(8)))

    assert all(one == seen[0] for one in seen)
    assert seen[0].keys() == set(hashes)


def test_a_database_whose_tables_are_gone_is_a_storage_error(cache: EmbeddingCache, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE embeddings")

    with pytest.raises(StorageError, match=r"cannot read embeddings: .*(no such table|does not exist)"):
        cache.get(KEY, [sha256(1)])
    with pytest.raises(StorageError, match=r"cannot keep embeddings: .*(no such table|does not exist)"):
        cache.put(KEY, {sha256(1): vector(1)})
