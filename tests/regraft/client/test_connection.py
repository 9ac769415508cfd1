from pathlib import Path

import pytest

from regraft.auth import is_loopback
from regraft.client.connection import Connection
from regraft.errors import InvalidRequestError

TOKEN = "regraft_secret"  # noqa: S105 - a test's own
FILE = Path("ca.pem")


@pytest.mark.parametrize("target", ["127.0.0.1:1", "127.8.8.8:1", "localhost:1", "[::1]:1", "unix:/run/regraft.sock"])
def test_a_token_may_stay_on_this_machine_in_the_clear(target: str) -> None:
    assert is_loopback(target)
    assert Connection(target, TOKEN).token == TOKEN


@pytest.mark.parametrize("target", ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "localhost.example.com:1"])
def test_a_token_leaves_this_machine_encrypted_or_because_somebody_said_so(target: str) -> None:
    assert not is_loopback(target)
    with pytest.raises(InvalidRequestError, match="--insecure"):
        Connection(target, TOKEN)
    assert Connection(target, TOKEN, tls_ca=FILE).token == Connection(target, TOKEN, insecure=True).token
    assert not Connection(target).token


@pytest.mark.parametrize(
    ("tls", "flag"),
    [
        ({"tls_cert": FILE}, "--tls-key"),
        ({"tls_key": FILE}, "--tls-cert"),
        ({"tls_cert": FILE, "tls_key": FILE}, "--tls-ca"),
    ],
)
def test_files_that_need_others_say_which(tls: dict[str, Path], flag: str) -> None:
    with pytest.raises(InvalidRequestError, match=flag):
        Connection(**tls)  # type: ignore[arg-type]  # mypy cannot see which fields


@pytest.mark.parametrize("target", ["", ":50051", ":"])
def test_a_target_without_a_host_is_refused_in_words(target: str) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"^--target '.*': need HOST:PORT, such as 127.0.0.1:50051, or unix:PATH"
    ):
        Connection(target)


@pytest.mark.parametrize("token", ["two\nlines", "ümlaut", "nul\0"])
def test_what_cannot_be_sent_is_no_token(token: str) -> None:
    with pytest.raises(InvalidRequestError, match="--token"):
        Connection(token=token)


def test_a_token_is_in_no_text_that_might_be_logged() -> None:
    assert TOKEN not in repr(Connection(token=TOKEN))
