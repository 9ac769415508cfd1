"""Laws of what follows from a comparison's figures."""

from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.training.test_compare import row
from training.comparison import Failure, Row, gains_of, levels, mark_pareto, pareto_front
from training.label_places import Box, Bubble, place

COSTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=12)
POSITIVE = st.lists(st.floats(0.01, 1e4), max_size=30)


def beats(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


@given(COSTS)
def test_the_front_is_what_nothing_beats_and_beats_all_the_rest(costs: list[tuple[int, ...]]) -> None:
    front = pareto_front(costs)

    assert bool(front) == bool(costs)
    for index, cost in enumerate(costs):
        beaten_by_the_front = any(beats(costs[other], cost) for other in front)
        assert beaten_by_the_front == (index not in front)


@given(COSTS, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order(costs: list[tuple[int, ...]], random: object) -> None:
    shuffled = list(costs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis gives a random.Random

    assert {costs[index] for index in pareto_front(costs)} == {shuffled[index] for index in pareto_front(shuffled)}


@given(POSITIVE)
def test_levels_keep_the_order_and_hold_only_values_that_are_about_equal(values: list[float]) -> None:
    ranks = levels(values, 0.05)

    for (one, rank), (other, its) in combinations(zip(values, ranks, strict=True), 2):
        assert rank <= its if one <= other else rank >= its
        if rank == its:
            assert max(one, other) <= min(one, other) * 1.05 * (1 + 1e-9)


def test_the_noise_of_the_clock_puts_nothing_on_the_front() -> None:
    good = row("net", "probe", accuracy=0.9, mb=10.002, ms=5.1)
    bad = row("net", "scratch", accuracy=0.5, mb=10.001, ms=5.0)
    small = row("squeeze", accuracy=0.7, mb=2, ms=5)

    marked = mark_pareto([good, Failure("x", "probe", "no"), bad, small])

    assert [outcome.is_pareto for outcome in marked if isinstance(outcome, Row)] == [True, False, True]
    assert isinstance(marked[1], Failure)


@pytest.mark.parametrize(
    ("accuracy", "seconds", "sentence"),
    [
        (0.9, 2.5, "probe is 40.0 points above scratch in 1/40 of the time"),
        (0.9, 25, "probe is 40.0 points above scratch in 25% of the time"),
        (0.51, 90, "probe is 1.0 points above scratch, which may be chance, in about the same time"),
        (0.5, 100, "probe is level with scratch, which may be chance, in about the same time"),
        (0.1, 250, "probe is 40.0 points below scratch in 2.5 times the time"),
    ],
)
def test_what_transfer_brought_is_said_in_a_sentence(accuracy: float, seconds: float, sentence: str) -> None:
    probe = Row(**{**vars(row("net", accuracy=accuracy)), "seconds": seconds})
    scratch = Row(**{**vars(row("net", "scratch", accuracy=0.5)), "seconds": 100.0})

    (gain,) = gains_of([probe, row("other"), scratch])

    assert gain.sentence == sentence


ONE_ON_ANOTHER = (
    *((503.2610170256629, 106.94659148790078, 4.657230505538295),) * 2,
    (503.2610170256629, 50.0, 4.657230505538295),
    (99.98543691983093, 70.0, 9.236300071302395),
    (117.32871570617118, 265.233636915408, 21.540295307365017),
    *((70.0, 54.127761171002156, 21.540295307365017),) * 3,
)
"""Once one of their labels left the frame by a hair."""
BUBBLES = st.lists(
    st.builds(
        lambda x, y, radius: Bubble(x, y, radius, y - 30, y + 30, 90, 12),
        st.floats(50, 550),
        st.floats(50, 350),
        st.floats(4, 25),
    ),
    max_size=8,
)


@given(BUBBLES)
@example([Bubble(*circle, circle[1] - 30, circle[1] + 30, 90, 12) for circle in ONE_ON_ANOTHER])
def test_labels_stay_in_the_frame_and_off_each_other(bubbles: list[Bubble]) -> None:
    frame = Box(0, 0, 600, 400)

    boxes = place(bubbles, frame)

    assert len(boxes) == len(bubbles)
    for box in boxes:
        assert box.overlap(frame) == pytest.approx(box.area)
    for one, other in combinations(boxes, 2):
        assert one.overlap(other) == 0
