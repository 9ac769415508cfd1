"""Laws of Pareto fronts."""

from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.pareto import pareto_front

COSTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=12)


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
