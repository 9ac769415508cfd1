import getpass
import os

import pytest

from regraft.user import user_name


def test_a_user_is_known_by_the_name_of_the_login() -> None:
    assert user_name(lambda: "ada") == "ada"
    assert user_name() == getpass.getuser()


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 1000710000"), OSError("No username set")])
def test_a_user_without_a_name_is_known_by_number(error: Exception) -> None:
    def nobody() -> str:
        raise error

    assert user_name(nobody) == f"uid {os.getuid()}"
