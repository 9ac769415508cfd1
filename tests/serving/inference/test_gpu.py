import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.image.decode import decode_crop
from regraft.model.artifact import Head, graft
from regraft.model.session import open_session
from serving.inference.engine import rows_by_head
from serving.inference.gpu import DeviceHeads, DeviceRunner, bucket
from tests.serving.cuda import CUDA_WORKS
from tests.tiny import COLOURS, EMBEDDING_SIZE, SPEC, picture, tiny_backbone, tiny_card, tiny_head

LABELS = ("red", "green", "blue")
HEADS = [tiny_head(LABELS, sharpness=1.0 + number) for number in range(20)]
MODEL = graft(tiny_backbone(), HEADS[0], tiny_card(tiny_backbone(), HEADS[0], LABELS)).SerializeToString()
CROPS = [decode_crop(picture(label, number), SPEC) for number in range(3) for label in sorted(COLOURS)]
DEVICE = ("cuda" if CUDA_WORKS else "cpu", 0)


@pytest.fixture(scope="module")
def runner() -> DeviceRunner:
    return DeviceRunner(open_session(MODEL, provider="auto", threads=1))


@given(st.integers(1, 1000))
def test_a_bucket_is_the_least_power_of_two_with_room(count: int) -> None:
    size = bucket(count)

    assert size.bit_count() == 1
    assert size / 2 < count <= size


@pytest.mark.parametrize("count", range(1, len(CROPS) + 1))
def test_a_batch_that_was_filled_up_answers_for_its_own_pictures_only(runner: DeviceRunner, count: int) -> None:
    probabilities, embedding, novelty = runner.run(CROPS[:count], HEADS[0])

    assert len(probabilities) == len(embedding) == len(novelty) == count
    np.testing.assert_allclose(probabilities, HEADS[0].probabilities(embedding), atol=1e-5)
    np.testing.assert_allclose(novelty, HEADS[0].novelty(embedding), atol=1e-5)
    alone = np.concatenate([runner.run([crop], HEADS[0])[1] for crop in CROPS[:count]])
    np.testing.assert_allclose(embedding, alone, atol=1e-5)


def test_each_run_uses_the_head_that_it_was_given_however_many_there_were(runner: DeviceRunner) -> None:
    for head in [*HEADS, *HEADS]:
        probabilities, embedding, _ = runner.run(CROPS[:2], head)
        np.testing.assert_allclose(probabilities, head.probabilities(embedding), atol=1e-5)


def of_labels(count: int, seed: int) -> Head:
    """Return a head of so many labels, whitened by another number of rows."""
    random = np.random.default_rng(seed)
    shapes = (count, EMBEDDING_SIZE), (count,), (count, EMBEDDING_SIZE), (1 + seed % 5, EMBEDDING_SIZE)
    return Head(*(np.asarray(random.normal(size=shape), np.float32) for shape in shapes))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(0, 10))
def test_several_heads_of_a_batch_are_one_product_and_each_answers_for_its_own_pictures(
    runner: DeviceRunner, whose: list[int], seed: int
) -> None:
    heads = [of_labels(1 + (seed + which) % 7, seed + which) for which in range(6)]
    by_head = rows_by_head([heads[which] for which in whose])

    embedding, answers = runner.run_heads(CROPS[: len(whose)], by_head)

    np.testing.assert_allclose(embedding, runner.run(CROPS[: len(whose)], HEADS[0])[1], atol=1e-5)
    for (head, rows), (probabilities, novelty) in zip(by_head, answers, strict=True):
        np.testing.assert_allclose(probabilities, head.probabilities(embedding[rows]), atol=1e-5)
        np.testing.assert_allclose(novelty, head.novelty(embedding[rows]), atol=1e-5)


def test_more_heads_than_one_product_takes_are_several(runner: DeviceRunner) -> None:
    heads = [of_labels(3, seed) for seed in range(70)]

    embedding, answers = runner.run_heads([CROPS[0]] * 70, rows_by_head(heads))

    for row, (head, (probabilities, _)) in enumerate(zip(heads, answers, strict=True)):
        np.testing.assert_allclose(probabilities, head.probabilities(embedding[[row]]), atol=1e-5)


def test_heads_stay_on_the_device_up_to_so_many_bytes_and_those_used_last_longest() -> None:
    small, large = [of_labels(2, seed) for seed in (0, 5, 10)], of_labels(9, 0)
    size = sum(array.nbytes for array in small[0].feed().values())
    kept = DeviceHeads(DEVICE, 2 * size)
    first, second = kept.get(small[0]), kept.get(small[1])
    assert kept.size_bytes == 2 * size

    kept.get(small[0])
    kept.get(small[2])

    assert kept.size_bytes == 2 * size
    assert kept.get(small[0]) is first
    assert kept.get(small[1]) is not second, "of the three it was used longest ago"
    kept.get(large)
    assert kept.size_bytes > 2 * size, "one alone may be larger"


def test_a_head_that_nobody_holds_any_more_leaves_the_device() -> None:
    kept = DeviceHeads(DEVICE, 2**20)
    held, gone = of_labels(2, 0), of_labels(3, 0)
    kept.get(held)
    alone = kept.size_bytes
    kept.get(gone)
    assert kept.size_bytes > alone

    del gone
    gc.collect()

    assert kept.size_bytes == alone
