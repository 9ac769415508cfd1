import http.client
import json
import logging
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from regraft.errors import MissingPackageError, OperatorError
from regraft.stores.models import ModelStore
from serving.server import Server
from serving.settings import Settings
from tests.grpc_loop import grpc_loop
from tests.live_server import LiveServer
from tests.serving.certificates import Authority
from tests.serving.http.http_client import CLASSIFY, QUESTION, call
from tests.waiting import PATIENCE_S, wait_until


async def made(settings: Settings) -> Server:
    return Server(settings)


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith(("uvicorn", "serving.http"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingPackageError, match=r"regraft\[http\]"):
        grpc_loop().run(made(Settings(store=tmp_path, http="127.0.0.1:0")))


def test_a_server_without_http_spares_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith(("uvicorn", "serving.http"))]:
        monkeypatch.delitem(sys.modules, module)
    grpc_loop().run(made(Settings(store=tmp_path)))
    assert not [name for name in sys.modules if name.startswith(("uvicorn", "serving.http"))]


def test_a_port_that_is_taken_is_said_with_its_flag(empty_store: ModelStore, shared: LiveServer) -> None:
    taken = f"127.0.0.1:{shared.ready.http_port}"
    with pytest.raises(OperatorError, match=f"--http {taken}"), LiveServer(empty_store, http=taken):
        pass


@pytest.mark.parametrize("address", ["0.0.0.0:8000", "[::]:8000", "example.com:8000"])
def test_plaintext_leaves_the_machine_by_decision_only(address: str) -> None:
    with pytest.raises(ValidationError, match=r"--http .*--tls-cert"):
        Settings(http=address)
    assert Settings(http=address, insecure=True).http == address


def test_control_rpcs_do_not_answer_where_they_have_a_port_of_their_own(store: ModelStore) -> None:
    with LiveServer(store, http="127.0.0.1:0", control="127.0.0.1:0") as live:
        assert call(live, "/regraft.v1.Models/ListModels", {}).status == 404
        assert call(live, "/regraft.v1.Classifier/Classify", {}).status == 400


@pytest.fixture
def live(store: ModelStore, tls: dict[str, Path]) -> Iterator[LiveServer]:
    with LiveServer(store, http="127.0.0.1:0", **tls) as server:
        yield server


def asked(live: LiveServer, authority: Authority, own: tuple[Path, Path] | None = None) -> int:
    """Return the status of an answer, or 0 where nobody is talked to."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    if own:
        context.load_cert_chain(*own)
    connection = http.client.HTTPSConnection("127.0.0.1", live.ready.http_port, timeout=PATIENCE_S, context=context)
    try:
        connection.request("POST", CLASSIFY, json.dumps(QUESTION), {"content-type": "application/json"})
        return connection.getresponse().status
    except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
        return 0
    finally:
        connection.close()


def test_a_client_that_knows_the_authority_is_answered_and_one_without_tls_is_not(
    live: LiveServer, authority: Authority
) -> None:
    assert asked(live, authority) == 200
    plain = http.client.HTTPConnection("127.0.0.1", live.ready.http_port, timeout=PATIENCE_S)
    plain.request("GET", "/")
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        plain.getresponse()
    plain.close()


def test_a_new_certificate_is_used_after_a_change_and_a_bad_one_is_not(
    live: LiveServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "regraft.tls")
    assert asked(live, authority) == 200
    (authority.folder / "server.key").write_text("rubbish")
    wait_until(lambda: "--tls-key" in caplog.text)
    assert asked(live, authority) == 200

    authority.renew()
    authority.issue("server", "127.0.0.1")
    wait_until(lambda: asked(live, authority) == 200)


def test_a_client_is_known_by_its_certificate(
    store: ModelStore, authority: Authority, tls: dict[str, Path], tmp_path: Path
) -> None:
    callers = tmp_path / "callers"
    callers.write_text("shop classify certificate:shop.example.com\nada label certificate:Ada\n")
    with LiveServer(store, http="127.0.0.1:0", callers=callers, tls_client_ca=authority.ca, **tls) as live:
        assert asked(live, authority) == 0, "without a certificate the handshake fails"
        assert asked(live, authority, authority.issue("shop", "shop.example.com")) == 200
        assert asked(live, authority, authority.issue("ada", common_name="Ada")) == 200
        assert asked(live, authority, authority.issue("eve", "eve.example.com")) == 401
        authority.renew()
        cert, key = authority.issue("server", "127.0.0.1")
        assert (cert, key) == (tls["tls_cert"], tls["tls_key"])
        wait_until(lambda: asked(live, authority, authority.issue("shop", "shop.example.com")) == 200)
