"""Plain URLs: classify, models and probes, for curl and load balancers."""

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl

from google.protobuf import json_format

from regraft.errors import InvalidRequestError
from regraft.v1.models_pb2 import ListModelsRequest
from serving.http.call import answer
from serving.http.exchange import Exchange
from serving.http.messages import as_json
from serving.http.methods import Methods
from serving.http.plain import classify
from serving.http.plain.openapi import openapi_of

_LIST_MODELS: Final = "/regraft.v1.Models/ListModels"
_JSON: Final = "application/json"


class Rest:
    """The plain URLs of a port."""

    def __init__(self, methods: Methods, probes: Mapping[str, Callable[[], str]], most_bytes: int) -> None:
        """Answer by ``methods``; each of ``probes`` says what is wrong, or nothing."""
        self._methods = methods
        self._probes = probes
        self._most_bytes = most_bytes
        self._description: bytes | None = None

    def find(self, path: tuple[str, ...]) -> dict[str, Callable[[Exchange], Awaitable[None]]]:
        """Return what answers at a path, by HTTP method."""
        match path:
            case ("v1", "models", name, "classify"):
                return {"POST": partial(self._classify, name)}
            case ("v1", "models") if _LIST_MODELS in self._methods:
                return {"GET": self._list_models}
            case ("openapi.json",):
                return {"GET": self._describe}
            case (probe,) if probe in self._probes:
                asked = partial(_probe, self._probes[probe])
                return {"GET": asked, "HEAD": asked}
        return {}

    async def _classify(self, name: str, exchange: Exchange) -> None:
        read = partial(classify.read_request, exchange, name, self._most_bytes)
        response = await answer(exchange, self._methods[classify.PATH], read)
        await exchange.respond(200, _JSON, as_json(response))

    async def _describe(self, exchange: Exchange) -> None:
        if self._description is None:
            self._description = json.dumps(openapi_of(self._methods)).encode()
        await exchange.respond(200, _JSON, self._description)

    async def _list_models(self, exchange: Exchange) -> None:
        async def read() -> Any:  # noqa: ANN401 - as every reader
            try:
                return json_format.ParseDict(dict(parse_qsl(exchange.query)), ListModelsRequest())
            except json_format.ParseError as error:
                raise InvalidRequestError(f"the query makes no sense: {error}") from error

        response = await answer(exchange, self._methods[_LIST_MODELS], read)
        await exchange.respond(200, _JSON, as_json(response))


async def _probe(why_not: Callable[[], str], exchange: Exchange) -> None:
    text = why_not()
    await exchange.respond(503 if text else 200, "text/plain; charset=utf-8", f"{text or 'ok'}\n".encode())
