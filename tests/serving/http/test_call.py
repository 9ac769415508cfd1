"""Deadlines, full servers, clients that leave, and stops, over HTTP."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.serving.http.http_client import CLASSIFY, QUESTION, call, connected, enveloped, envelopes_of, fetch, head
from tests.serving.rpc.security.test_guard import callers_file
from tests.waiting import PATIENCE_S, wait_until

STREAM = "application/connect+json"
MESSAGE = enveloped(b'{"id":"one","request":{"image":"%s"}}' % QUESTION["image"].encode())
CHUNK = b"%x\r\n%b\r\n" % (len(MESSAGE), MESSAGE)


def first_line(opened: socket.socket) -> str:
    with opened.makefile("rb") as reader:
        return reader.readline().decode().strip()


@pytest.fixture
def live(store: ModelStore) -> Iterator[LiveServer]:
    with LiveServer(store, http="127.0.0.1:0", max_in_flight=1, read_timeout=PATIENCE_S) as server:
        yield server


def test_a_full_server_refuses_before_the_body_and_says_when_to_try_again(live: LiveServer) -> None:
    with live.busy_lanes():
        waiting = threading.Thread(target=lambda: call(live, CLASSIFY, QUESTION))
        waiting.start()
        wait_until(lambda: live.metric("regraft_in_flight") == 1)

        with connected(live) as opened:
            opened.sendall(head(CLASSIFY, content_type="application/json", content_length="900", expect="100-continue"))
            assert first_line(opened).endswith("429 Too Many Requests"), "and no 100 Continue"
        refused = call(live, CLASSIFY, QUESTION)
        assert refused.outcome[0] == "RESOURCE_EXHAUSTED"
        assert int(refused.headers["retry-after"]) >= 1
        assert {detail["type"] for detail in refused.json["details"]} >= {
            "google.rpc.ErrorInfo",
            "google.rpc.RetryInfo",
        }
    waiting.join()
    assert call(live, CLASSIFY, QUESTION).status == 200


def test_a_body_that_is_wanted_is_asked_for(shared: LiveServer) -> None:
    with connected(shared) as opened:
        opened.sendall(head(CLASSIFY, content_type="application/json", content_length="2", expect="100-continue"))
        assert first_line(opened).startswith("HTTP/1.1 100")


def test_a_stranger_is_refused_before_the_body_has_come(store: ModelStore, tmp_path: Path) -> None:
    with LiveServer(store, http="127.0.0.1:0", callers=callers_file(tmp_path)) as live, connected(live) as opened:
        opened.sendall(head(CLASSIFY, content_type="application/json", content_length="900", expect="100-continue"))
        assert first_line(opened).endswith("401 Unauthorized")


def test_a_call_ends_at_its_deadline(live: LiveServer) -> None:
    with live.busy_lanes():
        late = call(live, CLASSIFY, QUESTION, connect_timeout_ms="50")
    assert (late.status, late.outcome) == (504, ("DEADLINE_EXCEEDED", "Deadline Exceeded"))
    wait_until(lambda: live.metric("regraft_in_flight") == 0)


@pytest.mark.parametrize("timeout", ["soon", "-1", "12345678901"])
def test_a_deadline_that_is_no_time_is_refused(shared: LiveServer, timeout: str) -> None:
    refused = call(shared, CLASSIFY, QUESTION, connect_timeout_ms=timeout)
    assert refused.status == 400
    assert "Connect-Timeout-Ms" in refused.body.decode()


def test_a_client_that_leaves_frees_its_place(live: LiveServer) -> None:
    with live.busy_lanes():
        body = b'{"image":"' + QUESTION["image"].encode() + b'"}'
        with connected(live) as opened:
            opened.sendall(head(CLASSIFY, content_type="application/json", content_length=str(len(body))) + body)
            wait_until(lambda: live.metric("regraft_in_flight") == 1)
        wait_until(lambda: live.metric("regraft_in_flight") == 0)
    assert live.metric("regraft_requests_total", method="Classify", code="CANCELLED") == 1


def test_a_stream_is_ended_and_new_calls_are_refused_when_the_server_stops(live: LiveServer) -> None:
    with connected(live) as opened:
        stream = head("/regraft.v1.Classifier/ClassifyStream", content_type=STREAM, transfer_encoding="chunked")
        opened.sendall(stream + CHUNK)
        with opened.makefile("rb") as reader:
            while b"red" not in reader.readline():
                pass
        stopping = live.stop()
        with opened.makefile("rb") as reader:
            assert b"the server is stopping" in reader.read()
    assert stopping.result(PATIENCE_S) == 0


def test_messages_of_a_stream_are_answered_as_they_come(shared: LiveServer) -> None:
    messages = [b'{"id":"%d","request":{"image":"%s"}}' % (number, QUESTION["image"].encode()) for number in range(3)]
    reply = fetch(
        shared,
        "POST",
        "/regraft.v1.Classifier/ClassifyStream",
        enveloped(*messages),
        {"content-type": STREAM},
    )
    (*answers, (flags, end)) = envelopes_of(reply.body)
    assert [b'"id":"%d"' % number in data for number, (_, data) in enumerate(answers)] == [True] * 3
    assert (flags, end) == (2, b"{}")
