"""The Connect protocol: single messages, and streams of enveloped ones."""

import json
from base64 import b64encode
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import grpc

from serving.http.call import answer, answer_all
from serving.http.context import CallError
from serving.http.exchange import Exchange
from serving.http.messages import CODECS, Codec
from serving.http.methods import Method
from serving.http.protocols.envelopes import envelope, messages_of
from serving.http.status import details_of, headers_of, http_status
from serving.rpc.error_details import DETAILS_KEY

UNARY: Final = {f"application/{name}": codec for name, codec in CODECS.items()}
STREAMS: Final = {f"application/connect+{name}": codec for name, codec in CODECS.items()}
"""Types of bodies."""

Code = grpc.StatusCode

_IS_LAST: Final = 2
_UNCOMPRESSED: Final = ("", "identity")


async def answer_unary(exchange: Exchange, method: Method, codec: Codec, most_bytes: int) -> None:
    """Answer a method that is no stream."""
    parse = codec.parser(method)

    async def read() -> Any:  # noqa: ANN401 - any message, or an error
        return parse(await exchange.body(round(codec.growth * most_bytes)))

    try:
        _check_plain(exchange, "content-encoding")
        response = await answer(exchange, method, read)
    except CallError as error:
        await respond_error(exchange, error)
    else:
        await exchange.respond(200, f"application/{codec.name}", codec.serializer(method)(response))


async def answer_stream(exchange: Exchange, method: Method, codec: Codec, most_bytes: int) -> None:
    """Answer a method that streams, either way."""
    serialize = codec.serializer(method)
    begin = partial(exchange.begin, 200, f"application/connect+{codec.name}")

    async def send(response: Any) -> None:  # noqa: ANN401 - any message
        if not exchange.has_begun:
            await begin()
        await exchange.write(envelope(0, serialize(response)))

    end: dict[str, Any] = {}
    most_bytes = round(codec.growth * most_bytes)
    try:
        _check_plain(exchange, "connect-content-encoding")
        async with aclosing(messages_of(exchange, codec.parser(method), most_bytes, method.streams_in)) as requests:
            await answer_all(exchange, method, requests, send)
    except CallError as error:
        end = {"error": _as_json(error), "metadata": _metadata(error)}
    if not exchange.has_begun:
        await begin()
    await exchange.write(envelope(_IS_LAST, json.dumps(end).encode()), is_last=True)


async def respond_error(exchange: Exchange, error: CallError) -> None:
    """End a call that is no stream by an error."""
    trailers = [(f"trailer-{key}", value) for key, values in _metadata(error).items() for value in values]
    headers = [*headers_of(error), *trailers]
    await exchange.respond(http_status(error.code), "application/json", json.dumps(_as_json(error)).encode(), headers)


def _check_plain(exchange: Exchange, header: str) -> None:
    """Check that a body is not compressed.

    So what it holds is bounded by its length.
    """
    encoding = exchange.headers.get(header, "")
    if encoding not in _UNCOMPRESSED:
        raise CallError(Code.UNIMPLEMENTED, f"{header}: {encoding[:20]!r}; bodies are taken as they are: identity")


def _as_json(error: CallError) -> dict[str, Any]:
    code = "canceled" if error.code is Code.CANCELLED else error.code.name.lower()
    told: dict[str, Any] = {"code": code, "message": error.text}
    if details := details_of(error):
        told["details"] = [{"type": detail.TypeName(), "value": _base64(detail.value)} for detail in details]
    return told


def _metadata(error: CallError) -> dict[str, list[str]]:
    return {
        key: [_base64(value) if isinstance(value, bytes) else value]
        for key, value in error.trailers
        if key != DETAILS_KEY  # which the error itself has
    }


def _base64(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")
