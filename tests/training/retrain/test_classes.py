import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import PreconditionError
from training.retrain.classes import FEWEST, settle_classes

LABELLED = st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=40)


@given(st.permutations("abcd"), LABELLED)
def test_the_champions_order_is_kept_new_labels_follow_by_name_and_every_other_class_is_explained(
    known: list[str], labelled: list[tuple[str, bool]]
) -> None:
    enough = {label for label, _ in labelled if labelled.count((label, False)) >= FEWEST}
    if len(enough) < 2:
        with pytest.raises(PreconditionError, match="a head needs two classes"):
            settle_classes(known, labelled)
        return

    classes = settle_classes(known, labelled)

    assert set(classes.labels) == enough
    assert list(classes.labels) == [*(x for x in known if x in enough), *sorted(enough - set(known))]
    assert set(classes.left_out) == {*known, *(label for label, _ in labelled)} - enough


@pytest.mark.parametrize(
    ("counts", "remark"),
    [
        ((0, 0), "class 'old' leaves: no image bears its label any more"),
        ((1, 0), "class 'old' leaves: 1 training image of it, and 2 to train on are needed"),
        ((0, 3), "class 'old' leaves: 0 training and 3 holdout images of it, and 2 to train on are needed"),
    ],
)
def test_it_is_said_why_a_class_leaves(counts: tuple[int, int], remark: str) -> None:
    labelled = [("a", False), ("b", False)] * 2 + [("old", False)] * counts[0] + [("old", True)] * counts[1]

    assert settle_classes(["a", "b", "old"], labelled).remarks == (remark,)


def test_a_new_class_of_one_picture_is_left_out_and_not_said_to_leave() -> None:
    classes = settle_classes(
        ["a", "b"], [("a", False), ("b", False), ("typo", False)] * 1 + [("a", False), ("b", False)]
    )

    assert classes.remarks == ("class 'typo' is left out: 1 training image of it, and 2 to train on are needed",)
