import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.artifact import graft
from regraft.image import decode_crop
from regraft.runtime import open_session
from serving.device import DeviceRunner, bucket
from tests.serving.cuda import CUDA_WORKS
from tests.tiny import COLOURS, SPEC, picture, tiny_backbone, tiny_card, tiny_head

LABELS = ("red", "green", "blue")
HEADS = [tiny_head(LABELS, sharpness=1.0 + number) for number in range(20)]
MODEL = graft(tiny_backbone(), HEADS[0], tiny_card(tiny_backbone(), HEADS[0], LABELS)).SerializeToString()
CROPS = [decode_crop(picture(label, number), SPEC) for number in range(3) for label in sorted(COLOURS)]
DEVICE = "cuda" if CUDA_WORKS else "cpu"


@pytest.fixture(scope="module")
def runner() -> DeviceRunner:
    return DeviceRunner(open_session(MODEL, provider="auto", threads=1).session, DEVICE)


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
