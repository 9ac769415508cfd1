import asyncio
import socket
from collections.abc import Iterator

import pytest

from regraft.bench.channels import Channels, encode_request
from regraft.client.client import Client, RemoteError
from regraft.client.connection import Connection
from regraft.client.proxies import proxy_of, spare_loopback
from tests.live_server import LiveServer
from tests.proxy import RecordingProxy
from tests.tiny import picture

ELSEWHERE = "192.0.2.1:50051"
"""An address that nobody has (RFC 5737)."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingProxy]:
    """A proxy that the environment names."""
    with RecordingProxy() as proxy:
        for name, value in proxy.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("no_proxy", raising=False)
        yield proxy


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_stands_between_a_client_and_its_own_machine(
    host: str, shared: LiveServer, proxy: RecordingProxy
) -> None:
    with Client(f"{host}:{shared.ready.grpc_port}") as client:
        assert client.classify(picture("red")).predictions[0].label == "red"

    assert not proxy.requests


def test_nor_between_the_load_generator_and_its_own_machine(shared: LiveServer, proxy: RecordingProxy) -> None:
    async def ask() -> str:
        async with Channels(Connection(shared.target), 1) as channels:
            return (await channels.classify(0, encode_request(picture("red"), ""), 30)).code

    assert asyncio.run(ask()) == "OK"
    assert not proxy.requests


def test_what_is_elsewhere_is_reached_through_the_proxy_which_an_error_names(proxy: RecordingProxy) -> None:
    with Client(ELSEWHERE) as client, pytest.raises(RemoteError) as failure:
        client.list_models()

    assert f"CONNECT {ELSEWHERE} HTTP/1.1" in proxy.requests
    assert f"does the proxy on the way (https_proxy=http://{proxy.address}) let it through?" in str(failure.value)
    assert "secret" not in str(failure.value)


def test_the_load_generator_names_it_too(proxy: RecordingProxy) -> None:
    async def ask() -> None:
        async with Channels(Connection(ELSEWHERE), 1):
            pass

    with pytest.raises(RemoteError, match=rf"the proxy on the way \(https_proxy=http://{proxy.address}\)"):
        asyncio.run(ask())


def test_a_proxy_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections in, and no more
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", f"http://{address}")
        with Client(ELSEWHERE, timeout_s=0.3) as client, pytest.raises(RemoteError) as failure:
            client.list_models()

    assert failure.value.code == "DEADLINE_EXCEEDED"
    assert f"is it the proxy on the way (http_proxy=http://{address})?" in str(failure.value)


@pytest.mark.parametrize("exceptions", ["192.0.2.1", "example.com, .2.1"])
def test_no_proxy_holds_for_other_targets(
    exceptions: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", exceptions)

    with Client(ELSEWHERE, timeout_s=0.2) as client, pytest.raises(RemoteError) as failure:
        client.list_models()

    assert not proxy.requests
    assert not proxy_of(ELSEWHERE)
    assert "proxy" not in str(failure.value)


def test_this_machine_is_added_once_to_what_others_excepted() -> None:
    environment = {"no_proxy": "example.com"}

    for _ in range(2):
        spare_loopback(environment)

    loopback = "localhost,127.0.0.1,::1"
    assert environment == {"no_proxy": f"example.com,{loopback}", "NO_PROXY": loopback}
