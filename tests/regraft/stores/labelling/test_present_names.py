from hypothesis import given
from hypothesis import strategies as st

from regraft.stores.labelling.present_names import LabelChange, called_now

LABELS = st.sampled_from("abc")
CHANGES = st.lists(st.builds(LabelChange, LABELS, st.none() | LABELS))


@given(LABELS, CHANGES, CHANGES)
def test_changes_are_followed_one_after_the_other(
    label: str, first: list[LabelChange], then: list[LabelChange]
) -> None:
    between = called_now(label, first)

    assert called_now(label, [*first, *then]) == (None if between is None else called_now(between, then))
    assert called_now(label, []) == label
