"""A plain client of the HTTP port, by ``http.client``."""

import http.client
import json
import socket
import struct
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.live_server import LiveServer
from tests.tiny import picture
from tests.waiting import PATIENCE_S

CLASSIFY = "/regraft.v1.Classifier/Classify"
QUESTION = {"image": b64encode(picture("red")).decode()}


@dataclass
class Reply:
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever it says
        return json.loads(self.body)

    @property
    def outcome(self) -> tuple[str, str]:
        """Code, as gRPC has it, and text of a response by Connect."""
        if self.status == 200:
            return "OK", ""
        return self.json["code"].upper().replace("CANCELED", "CANCELLED"), self.json["message"]


def fetch(
    live: LiveServer, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """Ask once, over a connection of its own."""
    assert live.ready.http_port
    connection = http.client.HTTPConnection("127.0.0.1", live.ready.http_port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
    finally:
        connection.close()


@contextmanager
def connected(live: LiveServer) -> Iterator[socket.socket]:
    """Open a connection to the HTTP port."""
    assert live.ready.http_port
    with socket.create_connection(("127.0.0.1", live.ready.http_port), timeout=PATIENCE_S) as opened:
        yield opened


def head(path: str, **headers: str) -> bytes:
    """Return the head of a POST, where a ``_`` in a header's name is ``-``."""
    lines = [f"POST {path} HTTP/1.1", "host: here", *(f"{key.replace('_', '-')}: {headers[key]}" for key in headers)]
    return "\r\n".join((*lines, "", "")).encode()


def call(live: LiveServer, rpc: str, message: Any, **headers: str) -> Reply:  # noqa: ANN401 - whatever JSON can say
    """Call an RPC by Connect with JSON.

    A ``_`` in a header's name is sent as ``-``.
    """
    named = {"content-type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    return fetch(live, "POST", rpc, json.dumps(message).encode(), named)


def enveloped(*messages: bytes, flags: int = 0) -> bytes:
    """Return messages as the body of a stream."""
    return b"".join(struct.pack(">BI", flags, len(message)) + message for message in messages)


def envelopes_of(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield flags and message of each envelope of a body."""
    while body:
        flags, length = struct.unpack_from(">BI", body)
        yield flags, body[5 : 5 + length]
        body = body[5 + length :]
