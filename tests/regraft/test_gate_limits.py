import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import InvalidRequestError
from regraft.gate_limits import LIMIT_NAMES, GateLimits, Margins, check_limits, to_points, to_shares
from regraft.v1 import retraining_pb2


def test_the_margins_are_half_a_point_in_all_and_five_points_of_a_class() -> None:
    assert GateLimits().margins == Margins(0.5, 5.0, 5.0)
    assert GateLimits(max_drop=1).margins == Margins(1, 5.0, 5.0)


def test_a_limit_of_a_stored_job_is_one_that_a_person_typed() -> None:
    assert GateLimits.of({"gate": "auto"}) == GateLimits()
    assert GateLimits.of({"max_drop": 0.5, "max_suspects": 5.0}) == GateLimits(max_drop=0.5, max_suspects=5.0)


@pytest.mark.parametrize("points", [-0.1, 100.1, math.nan, math.inf])
def test_a_limit_is_0_to_100_points(points: float) -> None:
    check_limits({"max_drop": 0.0, "min_accuracy": 100.0})

    with pytest.raises(InvalidRequestError, match="max_suspects"):
        check_limits({"max_suspects": points})


@given(st.floats(0, 100).map(lambda points: round(points, 3)))
def test_a_limit_comes_back_from_a_message_as_it_was_typed(points: float) -> None:
    shares = to_shares({"max_drop": points, "max_class_drop": None})

    assert to_points(shares) == {"max_drop": points}
    assert 0 <= shares["max_drop"] <= 1


@pytest.mark.parametrize("share", [-0.001, 1.001, 5.0, math.nan, math.inf])
def test_a_limit_of_a_message_that_is_no_share_is_refused_with_an_example(share: float) -> None:
    with pytest.raises(InvalidRequestError, match=r"limits.max_drop: .* is no share; .* 0.05 is 5 percentage points"):
        to_points({"max_drop": share})


def test_every_limit_is_a_field_of_the_request() -> None:
    fields = {field.name for field in retraining_pb2.GateLimits.DESCRIPTOR.fields if field.has_presence}

    assert fields == {*LIMIT_NAMES}
