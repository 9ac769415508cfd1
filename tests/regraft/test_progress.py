from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from regraft.progress import Rounds, progress_lines


class Watch:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def lines_of(steps: Iterable[tuple[float, str, int, int]]) -> list[str]:
    """Return what is said of steps, each told at its second."""
    said: list[str] = []
    watch = Watch()
    with progress_lines(said.append, watch) as tell:
        for now_s, stage, done, total in steps:
            watch.now_s = now_s
            tell(stage, done, total)
        watch.now_s += 1000  # what comes after the last step is nobody's time
    return said


def test_a_stage_that_comes_again_has_a_clock_of_its_own() -> None:
    steps = [(0, "embed", 0, 2), (1, "embed", 1, 2), (2, "embed", 2, 2), (82, "embed", 0, 3), (86.5, "embed", 3, 3)]

    assert lines_of(steps) == ["embed: 2 in 2.0 s", "embed: 3 in 4.5 s"]


def test_the_clock_of_a_stage_starts_with_it_and_not_with_its_first_step() -> None:
    assert lines_of([(10, "export", 0, 1), (17, "export", 1, 1)]) == ["export: 1 in 7.0 s"]


def test_a_stage_within_another_takes_none_of_its_time() -> None:
    steps = [(0, "cv", 0, 2), (1, "fit", 0, 4), (3, "fit", 4, 4), (5, "cv", 1, 2), (6, "cv", 2, 2)]

    assert lines_of(steps) == ["fit: 4 in 2.0 s", "cv: 2 in 6.0 s"]


def test_an_end_that_is_told_twice_is_said_once() -> None:
    assert lines_of([(0, "fit", 0, 3), (1, "fit", 3, 3), (2, "fit", 3, 3)]) == ["fit: 3 in 1.0 s"]


def test_what_ends_early_is_said_last_with_how_far_it_came_and_the_time_of_its_last_step() -> None:
    steps = [(0, "finetune", 0, 120), (30, "finetune", 84, 120), (31, "embed", 0, 1), (32, "embed", 1, 1)]

    assert lines_of(steps) == ["embed: 1 in 1.0 s", "finetune: 84 of 120 in 30.0 s"]


def test_a_stage_of_nothing_says_nothing() -> None:
    assert lines_of([(0, "scan", 0, 0), (9, "scan", 0, 2), (10, "scan", 2, 2)]) == ["scan: 2 in 1.0 s"]


@given(st.lists(st.integers(1, 5), max_size=6))
def test_every_round_is_said_once_and_never_before_its_last_step(totals: list[int]) -> None:
    rounds, ended = Rounds(Watch()), []
    for total in totals:
        for done in range(total + 1):
            _, is_over = rounds.update("embed", done, total)
            ended += [total] if is_over else []
            assert is_over == (done == total)
    assert ended == totals
    assert rounds.unfinished() == []
