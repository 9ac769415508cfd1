"""The steady load of real clients."""

from regraft.load import Load
from tests.serving.live import LiveServer
from tests.tiny import picture


def test_clients_that_pause_send_no_more_meanwhile_and_end_at_once(shared: LiveServer) -> None:
    with Load(shared.target, [picture("red")], clients=2, pause_s=1000) as load:
        load.wait_for(2)

    summary = load.summary()
    assert (summary.requests, summary.failed) == (2, 0)
