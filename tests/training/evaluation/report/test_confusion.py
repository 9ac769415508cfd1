import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.report.confusion import MAX_CLASSES, MAX_WORST, confusion


def test_counts_stay_in_their_places() -> None:
    drawn = confusion(("red", "green"), ((6, 0), (2, 3)))

    assert [(row.label, [cell.images for cell in row.cells]) for row in drawn.rows] == [
        ("red", [6, 0]),
        ("green", [2, 3]),
    ]
    assert (drawn.labels, drawn.hidden) == (("red", "green"), 0)


def test_the_most_frequent_mistakes_come_first_with_their_share_of_the_truth() -> None:
    drawn = confusion(("a", "b", "c"), ((8, 1, 1), (0, 1, 4), (0, 0, 3)))

    assert [(mix.truth, mix.answer, mix.images, mix.share) for mix in drawn.worst] == [
        ("b", "c", 4, 0.8),
        ("a", "b", 1, 0.1),
        ("a", "c", 1, 0.1),
    ]


def test_right_and_wrong_answers_are_told_apart_by_colour_and_shares_by_strength() -> None:
    (row, _) = confusion(("a", "b"), ((9, 1), (0, 5))).rows
    right, wrong = (cell.style for cell in row.cells)

    assert "--heat" in right
    assert "--wrong" in wrong
    assert "color:#fff" in right
    assert "color:#fff" not in wrong


def test_of_many_classes_those_with_mistakes_are_drawn() -> None:
    count = MAX_CLASSES + 30
    counts = np.diag(np.full(count, 5))
    counts[120, 3] = 2

    drawn = confusion([f"c{index}" for index in range(count)], counts.tolist())

    assert (len(drawn.rows), drawn.hidden) == (MAX_CLASSES, 30)
    assert {"c120", "c3"} <= set(drawn.labels)
    assert list(drawn.labels) == sorted(drawn.labels, key=lambda label: int(label[1:]))


@given(
    st.integers(2, 6).flatmap(
        lambda k: st.lists(st.lists(st.integers(0, 9), min_size=k, max_size=k), min_size=k, max_size=k)
    )
)
def test_mistakes_are_never_right_answers_and_never_more_than_fit(counts: list[list[int]]) -> None:
    drawn = confusion([str(index) for index in range(len(counts))], counts)

    assert len(drawn.worst) <= MAX_WORST
    assert all(mix.truth != mix.answer and mix.images > 0 and 0 < mix.share <= 1 for mix in drawn.worst)
    assert [mix.images for mix in drawn.worst] == sorted((mix.images for mix in drawn.worst), reverse=True)
