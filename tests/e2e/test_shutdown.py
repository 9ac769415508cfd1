"""Invariant 10: NOT_SERVING, stop accepting, finish what is in flight, tell the truth in the exit code."""

import json
from collections import Counter

import pytest

from regraft.client import RemoteError
from regraft.load import Load
from regraft.store import ModelStore
from tests.e2e.conftest import ServerProcess
from tests.tiny import picture

CLIENTS = 8


def test_sigterm_under_load_answers_every_accepted_request_and_exits_0(store: ModelStore) -> None:
    with ServerProcess(store.root) as server:
        with Load(server.places["grpc"], [picture("red"), picture("blue")], clients=CLIENTS) as load:
            load.wait_for(200)
            code = server.stop()
        summary = load.summary()

    codes: Counter[str] = Counter()
    for error, count in summary.errors.items():
        codes[error.split(":")[0]] += count
    assert code == 0, "an accepted call was cut"
    assert "0 call(s) cut" in server.log.read_text()
    assert summary.requests - summary.failed >= 200
    # What failed was never accepted: it came while the port closed (gRPC's core cancels what it has not handed on yet,
    # at most one call of each client) or later.
    assert codes.keys() <= {"UNAVAILABLE", "CANCELLED"}, summary.errors
    assert codes["CANCELLED"] <= CLIENTS


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


def test_a_server_without_a_model_starts_and_picks_up_the_first_one_that_is_published(store: ModelStore) -> None:
    empty = store.root.parent / "empty"

    with ServerProcess(empty) as server, server.client() as client:
        assert client.list_models() == []
        assert server.stop() == 0
