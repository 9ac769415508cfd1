import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from regraft.examples import image_hash
from training.groups import group_named, group_of_one, groups_of_one


def test_a_group_is_the_same_in_every_process() -> None:
    program = "from training.groups import group_named; print(group_named('patient 7'))"

    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert int(other.stdout) == group_named("patient 7")


@given(st.lists(st.binary(), unique=True))
def test_pictures_are_groups_of_their_own_that_fit_an_int64(pictures: list[bytes]) -> None:
    names = [image_hash(data) for data in pictures]

    groups = groups_of_one(names)

    assert groups.tolist() == [group_of_one(name) for name in names]
    assert len(set(groups.tolist())) == len(names)
    assert (groups >= 0).all()


@given(st.text())
def test_any_text_names_a_group(name: str) -> None:
    assert 0 <= group_named(name) < 2**63
