"""Laws of what follows from a comparison's figures."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.compare.test_sweep import failure, row
from training.compare.results import FinishedRun, gains_of, learning_curves, levels, mark_pareto, winner

POSITIVE = st.lists(st.floats(0.01, 1e4), max_size=30)


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

    marked = mark_pareto([good, failure("x", "no"), bad, small])

    assert [outcome.is_pareto for outcome in marked if isinstance(outcome, FinishedRun)] == [True, False, True]


def test_each_data_set_has_a_front_of_its_own() -> None:
    marked = mark_pareto([row("net", accuracy=0.9), row("net", accuracy=0.6, data="steel")])

    assert [outcome.is_pareto for outcome in marked if isinstance(outcome, FinishedRun)] == [True, True]


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
    probe = row("net", accuracy=accuracy, seconds=seconds)
    scratch = row("net", "scratch", accuracy=0.5, seconds=100.0)

    (gain,) = gains_of([probe, row("other"), scratch])

    assert gain.sentence == sentence


def test_fine_tuning_is_held_against_the_probe_seed_by_seed() -> None:
    runs = [
        row("net", strategy, accuracy=accuracy, seed=seed)
        for seed, accuracies in enumerate([(0.90, 0.92), (0.91, 0.90), (0.92, 0.95)])
        for strategy, accuracy in zip(("probe", "finetune"), accuracies, strict=True)
    ]

    (gain,) = gains_of([*runs, row("net", "probe", seed=9), row("net", "finetune", share="20")])

    assert (gain.strategy, gain.against, gain.seeds) == ("finetune", "probe", 3)
    assert (gain.points, gain.lowest, gain.highest) == (1.3, -1.0, 3.0)
    assert gain.p_value == pytest.approx(0.125)  # of four pictures that differ, the median of the three seeds
    assert gain.sentence.startswith("finetune is 1.3 points above (3 seeds: -1.0 to +3.0) probe, which may be chance,")


def test_a_learning_curve_rises_by_pictures_and_tells_mean_and_range() -> None:
    runs = [
        row("net", accuracy=accuracy, share=share, train_images=count, seed=seed)
        for share, count, accuracies in (("all", 800, (0.9, 0.8)), ("20", 20, (0.5, 0.7)))
        for seed, accuracy in enumerate(accuracies)
    ]

    small, large = learning_curves(runs)

    assert (small.share, small.train_images, small.seeds) == ("20", 20, 2)
    assert (small.lowest, small.highest, large.lowest, large.highest) == (0.5, 0.7, 0.8, 0.9)
    assert small.mean == pytest.approx(0.6)
    assert large.mean == pytest.approx(0.85)


def test_the_winner_is_chosen_by_pictures_it_had_not_seen_and_never_by_the_holdout() -> None:
    lucky = row("lucky", accuracy=0.99, unseen_accuracy=0.8)
    good = row("good", accuracy=0.9, unseen_accuracy=0.9, ms=5)
    fast = row("fast", accuracy=0.8, unseen_accuracy=0.9, ms=2)
    worse_on_average = [row("luck", unseen_accuracy=0.95), row("luck", unseen_accuracy=0.8, seed=1, model="")]
    unknown = row("unknown", unseen_accuracy=None)

    assert winner([lucky, good, fast, *worse_on_average, unknown]) is fast
    assert winner([unknown]) is None
