import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.report.charts import BOTTOM, LEFT, RIGHT, TOP, chart

VALUES = st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 6)), min_size=1, max_size=30)


def points(line: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in line.split())]


@given(st.lists(VALUES, min_size=1, max_size=3))
def test_every_point_lies_on_the_paper(series: list[list[float]]) -> None:
    drawn = chart(series)

    for line in drawn.lines:
        assert all(LEFT <= x <= RIGHT and TOP - 0.1 <= y <= BOTTOM + 0.1 for x, y in points(line))


@given(VALUES)
def test_the_axis_is_cut_into_a_few_equal_parts(values: list[float]) -> None:
    ticks = chart([values]).ticks

    assert 2 <= len(ticks) <= 8
    assert (ticks[0].y, ticks[-1].y) == (BOTTOM, TOP)
    rounding = 1e-6 * (ticks[-1].value - ticks[0].value)
    assert ticks[0].value <= min(values) + rounding
    assert ticks[-1].value >= max(values) - rounding


def test_the_larger_value_is_drawn_higher_and_the_later_one_to_the_right() -> None:
    (line,) = chart([[1.0, 3.0, 2.0]]).lines

    (x1, y1), (x2, y2), (x3, y3) = points(line)
    assert x1 < x2 < x3
    assert y2 < y3 < y1


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.12, 0.95], [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([0.93, 0.989], [0.92, 0.94, 0.96, 0.98, 1]),
        ([1.0, 1.0], [1, 1.2]),
        ([], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_are_round_numbers(values: list[float], ticks: list[float]) -> None:
    assert [tick.value for tick in chart([values]).ticks] == pytest.approx(ticks)


def test_a_value_that_is_not_finite_is_passed_over() -> None:
    (line,) = chart([[1.0, math.nan, math.inf, 2.0]]).lines

    assert [x for x, _ in points(line)] == [LEFT, RIGHT]


def test_one_value_is_drawn_as_a_dot() -> None:
    first, second = points(chart([[0.5]]).lines[0])

    assert first == second
