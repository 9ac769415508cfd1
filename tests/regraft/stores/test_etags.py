import pytest

from regraft.errors import PreconditionError
from regraft.stores.etags import check_etag, etag_of


def test_states_that_differ_have_other_names() -> None:
    assert etag_of("red", 1, None) == etag_of("red", 1, None)
    assert len({etag_of("red", 1), etag_of("red", "1"), etag_of("red"), etag_of("re", "d1"), etag_of("red", None)}) == 5


def test_a_change_that_states_another_state_is_refused_and_one_that_states_none_is_not() -> None:
    now = etag_of("red")
    check_etag("", now, "example 'ab'")
    check_etag(now, now, "example 'ab'")

    with pytest.raises(PreconditionError, match="etag: example 'ab' has changed since"):
        check_etag(etag_of("blue"), now, "example 'ab'")
