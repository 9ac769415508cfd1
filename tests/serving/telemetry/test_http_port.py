import asyncio
import threading
import urllib.error
import urllib.request

import pytest

from regraft.errors import OperatorError
from regraft.stores.models import ModelStore
from serving.telemetry.http_port import MetricsPort
from serving.telemetry.metrics import Metrics
from tests.live_server import LiveServer
from tests.tiny import picture, publish_tiny
from tests.waiting import PATIENCE_S, wait_until


def asked(port: int, path: str) -> tuple[int, str]:
    """Return the status and the text of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def in_a_thread(port: int, path: str) -> tuple[int, str]:
    return await asyncio.to_thread(asked, port, path)


def test_metrics_are_answered_until_the_port_is_closed() -> None:
    async def story() -> tuple[int, str]:
        metrics = Metrics()
        metrics.swaps.labels("m", "head").inc()
        port = MetricsPort("127.0.0.1:0", metrics.application(), str, str)
        try:
            status, text = await in_a_thread(port.number, "/metrics")
            assert status == 200
            return port.number, text
        finally:
            port.close()

    number, text = asyncio.run(story())

    assert 'regraft_swaps_total{kind="head",model="m"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    with pytest.raises(urllib.error.URLError, match="refused"):
        asked(number, "/metrics")


def test_a_loop_that_is_stuck_is_neither_alive_nor_ready() -> None:
    async def story() -> list[tuple[int, str]]:
        port = MetricsPort("127.0.0.1:0", Metrics().application(), str, str)
        answers: list[tuple[int, str]] = []
        asking = threading.Thread(
            target=lambda: answers.extend(asked(port.number, path) for path in ("/healthz", "/readyz"))
        )
        asking.start()
        asking.join(PATIENCE_S)  # blocks the loop, as a call that never returns would
        answers.append(await in_a_thread(port.number, "/healthz"))
        port.close()
        return answers

    stuck = (503, "the server does not answer itself\n")
    assert asyncio.run(story()) == [stuck, stuck, (200, "ok\n")]


def test_what_a_restart_may_mend_is_said_to_whoever_restarts() -> None:
    async def story() -> list[tuple[int, str]]:
        port = MetricsPort("127.0.0.1:0", Metrics().application(), str, lambda: "a task keeps dying")
        try:
            return [await in_a_thread(port.number, path) for path in ("/healthz", "/readyz")]
        finally:
            port.close()

    assert asyncio.run(story()) == [(503, "a task keeps dying\n"), (200, "ok\n")]


def test_a_taken_port_is_the_operators_to_change() -> None:
    async def story() -> None:
        port = MetricsPort("127.0.0.1:0", Metrics().application(), str, str)
        try:
            MetricsPort(f"127.0.0.1:{port.number}", Metrics().application(), str, str)
        finally:
            port.close()

    with pytest.raises(OperatorError, match=r"--metrics 127\.0\.0\.1:.*choose another port"):
        asyncio.run(story())


def test_a_server_says_whether_it_lives_and_whether_it_is_ready(empty_store: ModelStore) -> None:
    with LiveServer(empty_store, grace_s=PATIENCE_S) as live:
        port = live.ready.metrics_port
        assert asked(port, "/healthz") == (200, "ok\n")
        assert asked(port, "/readyz") == (503, "no model answers: `regraft models list` says why\n")

        publish_tiny(empty_store)
        wait_until(lambda: asked(port, "/readyz") == (200, "ok\n"))

        with live.busy_lanes():
            asking = threading.Thread(target=live.client.classify, args=[picture("red")])
            asking.start()
            wait_until(lambda: live.metric("regraft_in_flight") == 1)
            live.stop()
            wait_until(lambda: asked(port, "/readyz") == (503, "the server is stopping\n"))
            assert asked(port, "/healthz") == (200, "ok\n")
        asking.join(PATIENCE_S)
