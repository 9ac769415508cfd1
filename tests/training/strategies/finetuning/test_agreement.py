"""How far an exported network may be from the trained one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import ArtifactError
from training.strategies.finetuning.agreement import agreement

LOGITS = np.array([[2.0, -1.0, 0.0], [0.0, 1.5, -1.0], [-1.0, 0.5, 2.0]], np.float32)


@given(st.floats(1e-6, 1e6))
def test_what_is_allowed_follows_the_spread_of_the_logits(scale: float) -> None:
    expected = LOGITS * np.float32(scale)
    rounded = expected + np.float32(0.02 * scale)

    found = agreement(expected, rounded)

    assert (found.images, found.same_answer) == (3, 1)
    assert found.max_logit_difference < 0.01 * found.logit_spread
    with pytest.raises(ArtifactError, match=r"of their spread, and 100\.00% of 3 answers are the same"):
        agreement(expected, expected + np.float32(scale))


def test_a_quarter_of_a_large_logit_with_all_answers_alike_ends_no_training() -> None:
    assert agreement(10 * LOGITS, 10 * LOGITS + np.float32(0.25)).same_answer == 1


def test_another_answer_is_an_error_however_small_the_difference() -> None:
    exported = LOGITS.copy()
    exported[0] = [0.9, -1.0, 1.1]  # beside a spread of 100 that is little
    others = np.array([[50.0, -50.0, 0.0]], np.float32)

    with pytest.raises(ArtifactError, match=r"75\.00% of 4 answers are the same"):
        agreement(np.concatenate([LOGITS, others]), np.concatenate([exported, others]))


def test_of_two_answers_that_are_alike_either_will_do() -> None:
    expected = np.concatenate([LOGITS, np.array([[1.0, 0.9999, -2.0]], np.float32)])
    exported = expected + np.array([0.0, 0.001, 0.0], np.float32)

    assert agreement(expected, exported).same_answer == 0.75


def test_what_is_no_number_never_agrees() -> None:
    with pytest.raises(ArtifactError):
        agreement(LOGITS, LOGITS * np.float32("nan"))
