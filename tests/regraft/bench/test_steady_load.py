"""The load beside other work."""

import pytest

from regraft.bench.settings import BenchSettings
from regraft.bench.steady_load import Load
from regraft.client.client import RemoteError
from regraft.client.connection import Connection
from tests.live_server import LiveServer, background_load
from tests.tiny import picture


def test_clients_that_pause_send_no_more_meanwhile_and_end_at_once(shared: LiveServer) -> None:
    with background_load(shared.target, clients=2, pause_s=1000) as load:
        load.wait_for(2)

    result = load.result()
    assert (result.requests, result.failed) == (2, 0)
    assert result.versions == {1: 2}


def test_what_is_sent_is_counted_by_phases_in_their_order(shared: LiveServer) -> None:
    with background_load(shared.target, clients=2) as load:
        load.wait_for(5)
        load.mark("after")
        load.wait_for(5)

    result = load.result()
    assert list(result.phases) == ["before", "after"]
    assert all(phase.requests == phase.answered > 0 for phase in result.phases.values())
    assert result.requests == sum(phase.requests for phase in result.phases.values()) >= 10
    assert result.to_dict()["phases"]["after"]["versions"] == {1: result.phases["after"].answered}


def test_a_load_on_nobody_is_an_error_at_once() -> None:
    load = Load(BenchSettings((picture("red"),), Connection("127.0.0.1:1")))

    with pytest.raises(RemoteError, match=r"no server answers at 127\.0\.0\.1:1"), load:
        pass
