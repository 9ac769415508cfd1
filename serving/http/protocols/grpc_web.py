"""gRPC-Web: gRPC's messages in a body, and the status after them."""

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import quote

import grpc

from regraft.errors import InvalidRequestError
from serving.http.call import answer_all
from serving.http.context import CallError
from serving.http.exchange import Exchange
from serving.http.methods import Method
from serving.http.protocols.envelopes import envelope, messages_of

_BINARY: Final = "application/grpc-web"
_TEXT: Final = "application/grpc-web-text"
TYPES: Final = (_BINARY, f"{_BINARY}+proto", _TEXT, f"{_TEXT}+proto")
"""Types of bodies."""

_IS_TRAILERS: Final = 0x80
_OK: Final = CallError(grpc.StatusCode.OK, "")


async def answer_web(exchange: Exchange, method: Method, most_bytes: int) -> None:
    """Answer a method, which may stream."""
    is_text = exchange.content_type.startswith(_TEXT)

    async def write(data: bytes, *, is_last: bool = False) -> None:
        if not exchange.has_begun:
            await exchange.begin(200, exchange.content_type)
        await exchange.write(b64encode(data) if is_text else data, is_last=is_last)

    async def send(response: Any) -> None:  # noqa: ANN401 - any message
        await write(envelope(0, method.serialize(response)))

    end = _OK
    chunks = _decoded if is_text else None
    try:
        requests = messages_of(exchange, method.parse, most_bytes, method.streams_in, chunks)
        async with aclosing(requests):
            await answer_all(exchange, method, requests, send)
    except CallError as error:
        end = error
    await write(envelope(_IS_TRAILERS, _trailers(end)), is_last=True)


async def _decoded(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield base64 decoded, four characters at a time."""
    rest = b""
    async for chunk in chunks:
        text = rest + chunk
        whole = len(text) - len(text) % 4
        rest = text[whole:]
        try:
            yield b64decode(text[:whole], validate=True)
        except ValueError as error:
            raise InvalidRequestError(f"the body is no base64: {error}") from error
    if rest:
        raise InvalidRequestError("the body ends within four characters of base64")


def _trailers(error: CallError) -> bytes:
    lines = [("grpc-status", str(error.code.value[0])), ("grpc-message", quote(error.text, safe=" ,:;/'()[]"))]
    lines += [(key, b64encode(value).decode() if isinstance(value, bytes) else value) for key, value in error.trailers]
    return "".join(f"{key}: {value}\r\n" for key, value in lines).encode("ascii", "replace")
