"""Invariant 10: NOT_SERVING, stop accepting, finish what is in flight, tell the truth in the exit code."""

import json
import signal
from pathlib import Path

import pytest
import trustme

from regraft.auth import hash_token, new_token
from regraft.client.client import Client, RemoteError
from regraft.client.connection import Connection
from regraft.stores.models import ModelStore
from tests.e2e.conftest import ServerProcess
from tests.live_server import background_load
from tests.tiny import picture
from tests.waiting import wait_until

CLIENTS = 8
PAUSE_S = 0.02
"""Who was refused asks again when the port has closed, not once more while it does."""


def test_sigterm_under_load_answers_every_accepted_request_and_exits_0(store: ModelStore) -> None:
    with ServerProcess(store.root) as server:
        with background_load(server.places["grpc"], clients=CLIENTS, pause_s=PAUSE_S) as load:
            load.wait_for(200)
            code = server.stop()
        result = load.result()

    assert code == 0, "an accepted call was cut"
    assert "0 call(s) cut" in server.log.read_text()
    assert result.requests - result.failed >= 200
    # What failed was never accepted: it came while the port closed (gRPC's core cancels what it has not handed on yet,
    # at most one call of each client) or later.
    assert result.errors.keys() <= {"UNAVAILABLE", "CANCELLED"}, result.phases
    assert result.errors["CANCELLED"] <= CLIENTS


def test_a_log_for_machines_has_one_object_a_line_of_the_server_and_of_its_retrains(store: ModelStore) -> None:
    with ServerProcess(store.root, "--log-format", "json") as server, server.client() as client:
        with pytest.raises(RemoteError, match="nobody"):
            client.get_model("nobody")  # its caller's fault: no line
        list(client.add_examples([(picture("grey", number), "grey") for number in range(20)]))
        list(client.watch_job(client.retrain().id))
        assert server.stop() == 0

    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert {"regraft.server", "regraft.retrain"} <= {line["logger"] for line in lines}
    assert "regraft.rpc" not in {line["logger"] for line in lines}


def test_sighup_reads_callers_and_certificates_again_and_says_so(store: ModelStore, tmp_path: Path) -> None:
    callers = tmp_path / "callers"
    token = new_token()
    callers.write_text(f"ada classify sha256:{hash_token(token)}\n")
    authority = trustme.CA()
    cert, key, ca = tmp_path / "server.crt", tmp_path / "server.key", tmp_path / "ca.pem"
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(cert)
    authority.cert_pem.write_to_path(ca)
    flags = ["--callers", callers, "--tls-cert", cert, "--tls-key", key]

    with ServerProcess(store.root, *map(str, flags), "--log-format", "json") as server:
        server.process.send_signal(signal.SIGHUP)
        with pytest.raises(RemoteError, match="TLS"), Client(server.places["grpc"]) as stranger:
            stranger.list_models()
        wait_until(lambda: f"{callers}: 1 callers" in server.log.read_text())
        wait_until(lambda: f"{cert} and what belongs to it were read again" in server.log.read_text())
        with Client(Connection(server.places["grpc"], token, tls_ca=ca)) as client:
            assert client.classify(picture("red")).predictions[0].label == "red"
        assert server.stop() == 0

    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert {line["logger"] for line in lines} >= {"regraft.tls", "regraft.access"}, (
        "gRPC's core adds no line of its own"
    )


def test_sighup_of_a_server_that_has_neither_says_so_and_ends_nothing(store: ModelStore) -> None:
    with ServerProcess(store.root) as server, server.client() as client:
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "neither --callers nor --tls-cert" in server.log.read_text())
        assert client.is_serving()
        assert server.stop() == 0


def test_a_server_without_a_model_starts_and_picks_up_the_first_one_that_is_published(store: ModelStore) -> None:
    empty = store.root.parent / "empty"

    with ServerProcess(empty) as server, server.client() as client:
        assert client.list_models() == []
        assert server.stop() == 0
