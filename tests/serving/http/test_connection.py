"""Clients that send too slowly or too much, or close their half."""

import json
import socket
from collections.abc import Iterator

import pytest

from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.serving.http.http_client import CLASSIFY, QUESTION, Reply, call, connected, head
from tests.tiny import publish_tiny
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that waits for nobody, and takes small pictures alone."""
    store = ModelStore(tmp_path_factory.mktemp("strict") / "store")
    publish_tiny(store)
    limits = {"read_timeout": 0.2, "max_image_bytes": 100_000, "max_connections": 20}
    with LiveServer(store, http="127.0.0.1:0", **limits) as server:
        yield server


def ended(opened: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    with opened.makefile("rb") as reader:
        return reader.read()


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nhost: he"], ids=["nothing", "half a head"])
def test_a_head_that_does_not_come_closes_the_connection(strict: LiveServer, sent: bytes) -> None:
    with connected(strict) as opened:
        opened.sendall(sent)
        assert ended(opened) == b""


def test_a_body_that_does_not_come_ends_the_call(strict: LiveServer) -> None:
    with connected(strict) as opened:
        opened.sendall(head(CLASSIFY, content_type="application/json", content_length="900") + b"{")
        assert b"did not come within" in ended(opened), "and then it is not waited for any more"


def test_what_follows_a_refusal_is_not_read_for_ever(strict: LiveServer) -> None:
    with connected(strict) as opened:
        opened.sendall(head("/nowhere", transfer_encoding="chunked"))
        assert b"404" in ended(opened)


@pytest.mark.parametrize("headers", [{"x": "y" * 70_000}, {f"x{number}": "y" * 100 for number in range(700)}])
def test_huge_heads_are_refused(strict: LiveServer, headers: dict[str, str]) -> None:
    with connected(strict) as opened:
        opened.sendall(head(CLASSIFY, connection="close", **headers))
        assert b" 431 " in ended(opened).splitlines()[0]


def test_a_body_beyond_the_limit_is_refused_as_it_comes(strict: LiveServer) -> None:
    with connected(strict) as opened:
        opened.sendall(head(CLASSIFY, content_type="application/json", content_length="99999999"))
        assert b"REGRAFT_MAX_IMAGE_BYTES" in ended(opened)
    with connected(strict) as opened:
        opened.sendall(head(CLASSIFY, content_type="application/json", transfer_encoding="chunked"))
        opened.sendall(b"80000\r\n" + 0x80000 * b" ")
        assert b"REGRAFT_MAX_IMAGE_BYTES" in ended(opened)


@pytest.mark.parametrize("chunk", [b"fffffffffffffffffffff\r\n", b"5;" + 70_000 * b"x", b"-1\r\n", b"x\r\n"])
def test_chunks_that_are_none_close_the_connection(strict: LiveServer, chunk: bytes) -> None:
    with connected(strict) as opened:
        opened.sendall(head(CLASSIFY, content_type="application/json", transfer_encoding="chunked") + chunk)
        assert b" 200 " not in ended(opened)


def test_a_json_text_of_many_tiny_values_or_great_depth_is_refused(strict: LiveServer) -> None:
    for swarm in ("[" * 15_000, '{"a":[' + "0," * 30_000 + "0]}", '{"image":' * 5_000):
        with connected(strict) as opened:
            length = str(len(swarm))
            asked = head(CLASSIFY, content_type="application/json", content_length=length, connection="close")
            opened.sendall(asked + swarm.encode())
            assert b" 400 " in ended(opened).splitlines()[0]


def test_requests_sent_at_once_are_answered_in_their_order(strict: LiveServer) -> None:
    questions = []
    for top_k in (1, 2, 3):
        body = json.dumps(QUESTION | {"topK": top_k}).encode()
        questions.append(head(CLASSIFY, content_type="application/json", content_length=str(len(body))) + body)
    with connected(strict) as opened:
        opened.sendall(b"".join(questions))
        answers = [part.partition(b"HTTP/1.1")[0] for part in b"".join(_three_answers(opened)).split(b"\r\n\r\n")[1:]]
    assert [len(json.loads(answer)["predictions"]) for answer in answers] == [1, 2, 3]


def _three_answers(opened: socket.socket) -> Iterator[bytes]:
    seen = b""
    while seen.count(b'"requestId"') < 3 or not seen.endswith(b"}"):
        seen += (part := opened.recv(65536))
        yield part


def test_a_client_that_closes_its_half_is_let_go(strict: LiveServer) -> None:
    with connected(strict) as opened:
        opened.sendall(head(CLASSIFY, content_type="application/json", content_length="900") + b"{")
        opened.shutdown(socket.SHUT_WR)
        assert ended(opened) == b""


def test_connections_beyond_the_most_are_closed_and_room_that_is_left_is_used(strict: LiveServer) -> None:
    opened = [socket.create_connection(("127.0.0.1", strict.ready.http_port or 0)) for _ in range(20)]
    with connected(strict) as beyond:
        assert _is_closed(beyond)
    for each in opened:
        each.close()
    wait_until(lambda: _answer_of(strict) == 200)


def _is_closed(opened: socket.socket) -> bool:
    try:
        return opened.recv(1) == b""
    except ConnectionResetError:
        return True


def _answer_of(live: LiveServer) -> int:
    try:
        reply: Reply = call(live, CLASSIFY, QUESTION)
    except OSError:
        return 0
    return reply.status
