import pytest

from regraft.auth import ROLES, hash_token, new_token
from serving.rpc.security.roles import Role


def test_no_two_tokens_are_alike_and_scanners_can_tell_them() -> None:
    tokens = {new_token() for _ in range(100)}

    assert len(tokens) == 100
    assert all(token.startswith("regraft_") and len(token) == len("regraft_") + 43 for token in tokens)


def test_a_hash_is_that_of_every_other_tool() -> None:
    assert hash_token("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("role", Role)
def test_roles_have_the_same_names_and_order_on_both_sides(role: Role) -> None:
    assert ROLES[role - 1] == role.name.lower()
