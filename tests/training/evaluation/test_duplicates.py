import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.model.artifact import FloatArray
from training.data.groups import merged
from training.evaluation.duplicates import LIKE, MAX_PAIRS, look_alikes, near_duplicates
from training.evaluation.neighbours import EXACT_UP_TO, nearest


def photos(count: int, size: int = 32, seed: int = 0) -> FloatArray:
    """Return embeddings of pictures that have nothing to do with each other."""
    return np.asarray(np.random.default_rng(seed).normal(3, 1, (count, size)), np.float32)


def shot_again(embedding: FloatArray, change: float = 0.15, seed: int = 1) -> FloatArray:
    """Return the embedding of nearly the same picture."""
    noise = np.random.default_rng(seed).normal(size=embedding.shape)
    return np.asarray(embedding + change * noise, np.float32)


def alike(count: int, size: int = 32) -> FloatArray:
    """Return embeddings of two kinds of texture, each picture like all others of its kind."""
    kinds = np.zeros((count, size))
    kinds[::2, 0], kinds[1::2, 0] = 4, -4
    return np.asarray(kinds + np.random.default_rng(0).normal(0, 0.3, (count, size)), np.float32)


def nothing_held(embedding: FloatArray) -> npt.NDArray[np.bool_]:
    return np.zeros(len(embedding), np.bool_)


def all_answered_alike(embedding: FloatArray) -> npt.NDArray[np.int64]:
    return np.zeros(len(embedding), np.int64)


def test_a_picture_shot_again_is_found() -> None:
    embedding = photos(60)
    embedding[41] = shot_again(embedding[7])

    found = near_duplicates(embedding, all_answered_alike(embedding), nothing_held(embedding))

    assert found.pairs.tolist() == [[7, 41]]
    assert LIKE < found.cosine[0] <= 1
    assert (found.found, found.across) == (1, 0)


def test_pictures_that_are_all_alike_are_not_reported() -> None:
    embedding = alike(80)
    assert near_duplicates(embedding, all_answered_alike(embedding), nothing_held(embedding)).found == 0


def test_among_pictures_that_are_all_alike_one_shot_again_stands_out() -> None:
    embedding = alike(80)
    embedding[50] = shot_again(embedding[3], 0.02)

    assert near_duplicates(embedding, all_answered_alike(embedding), nothing_held(embedding)).pairs.tolist() == [
        [3, 50]
    ]


def test_pictures_of_a_class_are_no_duplicates_however_near_fine_tuning_has_drawn_them() -> None:
    answer = np.arange(80) % 2
    embedding = photos(80, size=64)
    embedding[:, 0] += np.where(answer == 1, 100, -100).astype(np.float32)
    embedding[50] = shot_again(embedding[4])

    found = near_duplicates(embedding, answer, nothing_held(embedding))

    assert found.pairs.tolist() == [[4, 50]]


def test_two_shots_are_found_though_nothing_else_was_answered_so() -> None:
    embedding = photos(60)
    embedding[59] = shot_again(embedding[58])

    found = near_duplicates(embedding, np.array([0] * 58 + [1] * 2), nothing_held(embedding))

    assert found.pairs.tolist() == [[58, 59]]


def test_two_shots_of_one_scene_are_found_though_they_were_answered_otherwise() -> None:
    answer = np.arange(80) % 2
    embedding = photos(80)
    embedding[answer == 1, 0] += 3
    embedding[51] = shot_again(embedding[4])

    assert near_duplicates(embedding, answer, nothing_held(embedding)).pairs.tolist() == [[4, 51]]


def test_of_a_series_of_one_scene_every_pair_is_found() -> None:
    embedding = photos(60)
    embedding[10:15] = [shot_again(embedding[9], 0.05, seed) for seed in range(5)]

    assert near_duplicates(embedding, all_answered_alike(embedding), nothing_held(embedding)).found == 15


def test_pairs_across_the_splits_come_first_and_are_counted() -> None:
    embedding = photos(40)
    embedding[1] = embedding[0]
    embedding[20] = shot_again(embedding[2])
    embedding[21] = shot_again(embedding[3], 0.05)
    held = np.arange(40) >= 20

    found = near_duplicates(embedding, all_answered_alike(embedding), held)

    assert found.pairs.tolist() == [[3, 21], [2, 20], [0, 1]]
    assert (found.found, found.across) == (3, 2)
    assert found.cosine[0] > found.cosine[1]


def test_the_list_is_cut_off_and_all_pairs_are_counted() -> None:
    embedding = photos(2 * MAX_PAIRS + 20)
    half = len(embedding) // 2
    embedding[half:] = shot_again(embedding[:half], 0.05)
    held = np.arange(len(embedding)) >= len(embedding) - 3

    found = near_duplicates(embedding, all_answered_alike(embedding), held)

    assert (len(found.pairs), found.found, found.across) == (MAX_PAIRS, half, 3)
    assert held[found.pairs[:3]].any(axis=1).all()


def test_more_rows_than_one_block_give_the_same_pairs() -> None:
    embedding = photos(1300)
    embedding[[600, 1250]] = shot_again(embedding[[3, 5]])

    assert sorted(
        near_duplicates(embedding, all_answered_alike(embedding), nothing_held(embedding)).pairs.tolist()
    ) == [[3, 600], [5, 1250]]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_handful_of_pictures_is_no_problem(count: int) -> None:
    embedding = photos(count)

    found = near_duplicates(embedding, all_answered_alike(embedding), nothing_held(embedding))

    assert found.pairs.shape == (0, 2)
    assert found.found == 0


def test_embeddings_without_direction_are_no_problem() -> None:
    assert near_duplicates(np.zeros((6, 4), np.float32), np.zeros(6, np.int64), np.zeros(6, np.bool_)).found == 0


@given(st.integers(0, 25), st.integers(1, 4), st.integers(0, 2**31))
def test_a_pair_is_two_rows_and_comes_once(count: int, size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    embedding = np.asarray(generator.normal(size=(count, size)), np.float32)

    found = near_duplicates(embedding, generator.integers(0, 3, count), generator.random(count) < 0.3)

    pairs = [tuple(pair) for pair in found.pairs.tolist()]
    assert all(0 <= first < second < count for first, second in pairs)
    assert len(set(pairs)) == len(pairs) == len(found.cosine) == min(found.found, MAX_PAIRS)
    assert found.across <= found.found
    assert (found.cosine <= 1 + 1e-5).all()


@pytest.mark.parametrize("versions", [2, 3, 8])
def test_versions_of_a_picture_are_found_however_many_there_are(versions: int) -> None:
    originals = photos(40)
    embedding = np.concatenate([originals, *(shot_again(originals, 0.4, seed) for seed in range(1, versions))])

    pairs = look_alikes(embedding, np.zeros(len(embedding), np.int64))

    assert (pairs[:, 0] % 40 == pairs[:, 1] % 40).all()
    assert len(np.unique(merged(np.arange(len(embedding)), pairs))) == 40


def test_of_pictures_that_are_all_alike_next_to_none_is_taken_for_a_version_of_another() -> None:
    embedding = alike(80)
    embedding[50] = shot_again(embedding[3], 0.02)

    pairs = look_alikes(embedding, np.zeros(80, np.int64)).tolist()

    assert [3, 50] in pairs
    assert len(pairs) <= 3


def test_versions_are_found_across_classes() -> None:
    embedding = photos(60)
    embedding[41] = shot_again(embedding[7])

    assert look_alikes(embedding, np.arange(60) // 30).tolist() == [[7, 41]]


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_of_few_pictures_there_are_few_neighbours(rows: int) -> None:
    index, cosine = nearest(photos(rows), np.zeros(rows, np.int64), 5)

    assert index.shape == cosine.shape == (rows, max(rows - 1, 0))
    assert (look_alikes(photos(rows), np.zeros(rows, np.int64)) < max(rows, 1)).all()


def test_the_nearest_come_first() -> None:
    embedding = photos(50)

    index, cosine = nearest(embedding, np.zeros(50, np.int64), 4)

    assert (np.diff(cosine, axis=1) <= 0).all()
    assert all(row not in others for row, others in enumerate(index.tolist()))


MANY = EXACT_UP_TO + 200


def scattered_and_shot_again() -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Return embeddings of more pictures than are all compared, and the rows of those that were shot again."""
    embedding = photos(MANY, size=96)
    first = np.random.default_rng(5).permutation(MANY)[:80].reshape(2, 40)
    embedding[first[1]] = shot_again(embedding[first[0]], 0.1)
    return embedding, np.sort(first.T, axis=1)


def test_among_very_many_pictures_those_shot_again_are_found_and_no_others() -> None:
    embedding, shot = scattered_and_shot_again()

    found = near_duplicates(embedding, np.arange(MANY) % 3, nothing_held(embedding))

    assert (found.found, found.across) == (len(shot), 0)
    assert sorted(found.pairs.tolist()) == sorted(shot.tolist())
    assert found.cosine.min() > LIKE


def test_very_many_pictures_give_the_same_pairs_each_time() -> None:
    embedding, _ = scattered_and_shot_again()

    one, other = (near_duplicates(embedding, np.arange(MANY) % 3, nothing_held(embedding)) for _ in range(2))

    assert one.pairs.tobytes() == other.pairs.tobytes()
    assert one.cosine.tobytes() == other.cosine.tobytes()


def test_of_very_many_equal_pictures_many_pairs_are_found() -> None:
    embedding = photos(MANY)
    embedding[:500] = embedding[0]

    found = near_duplicates(embedding, all_answered_alike(embedding), nothing_held(embedding))

    assert found.found > 500
    assert (found.pairs < 500).all()
