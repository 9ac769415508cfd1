from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.gate_limits import GateLimits
from training.gate.first import FirstAnswers, judge_first


def answers(right: list[bool], held: int = 0, classes: int = 2) -> FirstAnswers:
    """Return answers to pictures of each class in turn.

    The last ``held`` of them are holdout.
    """
    count = len(right)
    return FirstAnswers(
        np.array(right, np.bool_),
        np.arange(count) % classes,
        tuple("abcdefgh"[:classes]),
        np.arange(count) >= count - held,
        np.arange(count),
        tuple("phone" if number < count // 2 else "camera" for number in range(count)),
        np.zeros(count, np.bool_),
    )


def test_without_floors_a_first_version_is_blessed_and_says_its_evidence() -> None:
    verdict = judge_first(answers([True] * 18 + [False] * 2, held=5), GateLimits())

    assert verdict.blessed
    assert verdict.first is not None
    assert (verdict.first.images, verdict.first.holdout_images) == (15, 5)
    assert verdict.first.cross_validated_accuracy == 1
    assert verdict.first.holdout_accuracy == pytest.approx(0.6)
    assert verdict.first.accuracy == pytest.approx(0.9)
    assert verdict.first.low == pytest.approx(0.796, abs=1e-3)
    assert verdict.first.high == 1
    assert verdict.gain == (
        "first version, cross-validated accuracy 1.0000 (0.796 to 1.000, 15 images), holdout accuracy 0.6000 (5 images)"
    )


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (GateLimits(min_accuracy=91), "accuracy 0.9000 on 20 images that the head asked was not fitted on is below"),
        (GateLimits(min_class_recall=85), "class 'a' has a recall of 0.800 on 10 images"),
        (GateLimits(min_slice_accuracy=85), "source 'camera' has an accuracy of 0.800 on 10 images"),
    ],
)
def test_a_floor_refuses_by_all_pictures_together(limits: GateLimits, reason: str) -> None:
    right = [number not in (16, 18) for number in range(20)]

    verdict = judge_first(answers(right, held=5), limits)

    assert not verdict.blessed
    assert len(verdict.reasons) == 1
    assert verdict.reasons[0].startswith(reason)


def test_a_golden_picture_that_is_answered_wrong_refuses() -> None:
    verdict = judge_first(answers([True] * 8), GateLimits(), golden=[("a/1.png", False), ("b/2.png", True)])

    assert verdict.reasons == ("golden images answered wrong: a/1.png",)
    assert (verdict.golden_images, verdict.golden_failures) == (2, ("a/1.png",))


def test_what_few_pictures_do_not_show_is_said() -> None:
    verdict = judge_first(answers([True] * 4), GateLimits())

    assert verdict.blessed
    assert verdict.cautions == (
        "4 training images say little: the cross-validated accuracy may be anything from 0.510 to 1.000",
        "nothing was held out: about one image in five is, of those to come",
    )
    of_one_class = judge_first(answers([True] * 101, held=1), GateLimits())
    assert of_one_class.cautions == ("no holdout images: 'b'",)


def test_pictures_of_one_group_tell_less_than_as_many_apart() -> None:
    apart = answers([True] * 40)
    together = replace(apart, group=np.zeros(40, np.int64))

    first, few = (judge_first(each, GateLimits()).first for each in (apart, together))

    assert first is not None
    assert few is not None
    assert few.low < first.low


@given(st.lists(st.booleans(), min_size=2, max_size=30), st.integers(0, 10), st.integers(0, 100))
def test_it_is_blessed_just_where_no_floor_is_above_what_was_measured(right: list[bool], held: int, floor: int) -> None:
    verdict = judge_first(answers(right, held=min(held, len(right) - 1)), GateLimits(min_accuracy=floor))

    assert verdict.blessed == (100 * np.mean(right) >= floor - 1e-9)
    assert verdict.first is not None
    assert 0 <= verdict.first.low <= verdict.first.cross_validated_accuracy <= verdict.first.high <= 1
