import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regraft.client.client import Client, RemoteError
from regraft.client.connection import Connection
from regraft.errors import InvalidRequestError, OperatorError
from regraft.stores.models import ModelStore
from serving.rpc.security.tls import TlsFiles
from tests.live_server import LiveServer
from tests.serving.certificates import Authority
from tests.tiny import picture


@pytest.fixture
def live(store: ModelStore, tls: dict[str, Path]) -> Iterator[LiveServer]:
    with LiveServer(store, **tls) as server:
        yield server


def asked(live: LiveServer, **how: Any) -> str:  # noqa: ANN401 - the fields of a connection
    """Return the answer's label, or the code of the refusal."""
    with Client(Connection(live.target, **how)) as client:
        try:
            return client.classify(picture("red")).predictions[0].label
        except RemoteError as error:
            return error.code


def test_a_client_that_knows_the_authority_is_answered(live: LiveServer, authority: Authority) -> None:
    assert asked(live, tls_ca=authority.ca) == "red"


def test_a_client_that_trusts_others_talks_to_nobody(live: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()

    assert asked(live, tls_ca=Authority(tmp_path / "others").ca) == "UNAVAILABLE"


def test_a_client_that_does_not_speak_as_the_server_does_is_told_what_to_look_at(
    live: LiveServer, authority: Authority, shared: LiveServer
) -> None:
    for target, tls_ca in ((live.target, None), (shared.target, authority.ca)):
        with Client(Connection(target, tls_ca=tls_ca)) as client, pytest.raises(RemoteError, match=r"TLS.*--tls-ca"):
            client.list_models()


def test_files_that_a_client_cannot_use_are_named(authority: Authority, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("junk")
    cert, key = authority.issue("ada", common_name="ada")
    for files, flag in (
        ({"tls_ca": junk}, "--tls-ca"),
        ({"tls_ca": tmp_path / "nowhere"}, "--tls-ca"),
        ({"tls_ca": authority.ca, "tls_cert": junk, "tls_key": key}, "--tls-cert"),
        ({"tls_ca": authority.ca, "tls_cert": cert, "tls_key": junk}, "--tls-key"),
    ):
        with pytest.raises(InvalidRequestError, match=flag):
            Client(Connection(**files))  # type: ignore[arg-type]  # mypy cannot see which fields


def test_a_token_goes_over_tls(store: ModelStore, authority: Authority, tls: dict[str, Path], tmp_path: Path) -> None:
    callers = tmp_path / "callers"
    callers.write_text("shop classify certificate:nobody\n")
    with LiveServer(store, callers=callers, **tls) as live:
        assert asked(live, tls_ca=authority.ca) == "UNAUTHENTICATED"
        assert asked(live, tls_ca=authority.ca, token="wrong") == "UNAUTHENTICATED"  # noqa: S106 - a test's own


def test_a_new_certificate_is_used_for_the_next_connection_and_those_there_live_on(
    live: LiveServer, authority: Authority
) -> None:
    with Client(Connection(live.target, tls_ca=authority.ca)) as old:
        assert old.classify(picture("red")).version == 1
        authority.renew()
        authority.issue("server", "127.0.0.1")

        assert asked(live, tls_ca=authority.ca) == "red"
        assert old.classify(picture("red")).version == 1


@pytest.mark.parametrize("spoilt", ["server.crt", "server.key"])
def test_a_change_that_makes_no_sense_leaves_the_certificate_as_it_was(
    live: LiveServer, authority: Authority, spoilt: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "regraft.tls")
    (authority.folder / spoilt).write_text("rubbish")

    assert asked(live, tls_ca=authority.ca) == "red"
    assert asked(live, tls_ca=authority.ca) == "red"
    assert len([record for record in caplog.records if record.name == "regraft.tls"]) == 1
    authority.renew()
    authority.issue("server", "127.0.0.1")
    assert asked(live, tls_ca=authority.ca) == "red"


def test_a_reload_reads_the_files_even_where_nothing_seems_changed_and_says_so(
    live: LiveServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "regraft.tls")

    live.server.reload()

    cert = live.settings.tls_cert
    assert [record.getMessage() for record in caplog.records] == [f"{cert} and what belongs to it were read again"]
    assert asked(live, tls_ca=authority.ca) == "red"


def test_a_certificate_that_came_before_its_key_waits_for_it(live: LiveServer, authority: Authority) -> None:
    old_ca = authority.folder / "old.pem"
    old_ca.write_bytes(authority.ca.read_bytes())
    old_key = (authority.folder / "server.key").read_bytes()
    authority.renew()
    _, key = authority.issue("server", "127.0.0.1")
    new_key = key.read_bytes()
    key.write_bytes(old_key)

    assert asked(live, tls_ca=old_ca) == "red"
    key.write_bytes(new_key)
    assert asked(live, tls_ca=authority.ca) == "red"


def test_a_client_is_known_by_its_certificate(
    store: ModelStore, authority: Authority, tls: dict[str, Path], tmp_path: Path
) -> None:
    """By a DNS name where it has one, else by the common name."""
    callers = tmp_path / "callers"
    callers.write_text("shop classify certificate:shop.example.com\nada operate certificate:Ada\n")
    with LiveServer(store, callers=callers, tls_client_ca=authority.ca, **tls) as live:

        def of(cert: Path, key: Path) -> dict[str, Path]:
            return {"tls_ca": authority.ca, "tls_cert": cert, "tls_key": key}

        shop = of(*authority.issue("shop", "www.example.com", "shop.example.com", common_name="Ada"))
        stranger = of(*authority.issue("stranger", "stranger.example.com"))
        assert asked(live, tls_ca=authority.ca) == "UNAVAILABLE", "without a certificate the handshake fails"
        assert asked(live, **shop) == "red"
        assert asked(live, **stranger) == "UNAUTHENTICATED"
        with Client(Connection(live.target, **shop)) as client, pytest.raises(RemoteError) as failure:  # type: ignore[arg-type]  # mypy cannot see which fields
            client.list_models()
        assert failure.value.code == "PERMISSION_DENIED"
        ada = of(*authority.issue("ada", common_name="Ada"))
        with Client(Connection(live.target, **ada)) as client:  # type: ignore[arg-type]  # as above
            assert client.promote(1).model.history[0].who == "ada"


def test_files_that_cannot_be_used_are_the_operators_to_mend(
    store: ModelStore, authority: Authority, tls: dict[str, Path]
) -> None:
    _, other_key = authority.issue("other", "127.0.0.1")
    for wrong, flag in (
        ({"tls_key": other_key}, "--tls-key"),
        ({"tls_cert": authority.folder / "nowhere"}, "--tls-cert"),
        ({"tls_client_ca": other_key}, "--tls-client-ca"),
    ):
        with pytest.raises(OperatorError, match=flag), LiveServer(store, **{**tls, **wrong}):
            pass


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(authority: Authority) -> None:
    cert, key = authority.issue("server", "127.0.0.1")
    from cryptography.hazmat.primitives import serialization as pem  # noqa: PLC0415 - trustme brings it

    encrypted = pem.load_pem_private_key(key.read_bytes(), None).private_bytes(
        pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"secret")
    )
    key.write_bytes(encrypted)

    with pytest.raises(OperatorError, match="--tls-key"):
        TlsFiles(cert, key).read()
