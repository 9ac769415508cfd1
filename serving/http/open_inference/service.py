"""URLs of the Open Inference Protocol, each one of its RPCs."""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeAlias

from google.protobuf.message import Message

from regraft.oip import inference_pb2 as pb
from serving.http.call import answer
from serving.http.context import CallError
from serving.http.exchange import Exchange
from serving.http.messages import JSON
from serving.http.methods import Methods
from serving.http.open_inference.tensors import HEADER_LENGTH, as_plain, read_infer, write_infer
from serving.http.status import headers_of, http_status

Handler: TypeAlias = Callable[[Exchange], Awaitable[None]]

_SERVICE: Final = "/inference.GRPCInferenceService/"
_JSON: Final = "application/json"
_NOT_READY: Final = 503


class OpenInference:
    """The URLs under ``/v2``."""

    def __init__(self, methods: Methods, most_bytes: int) -> None:
        """Answer by ``methods``, whose messages have so many bytes at most."""
        self._methods = methods
        self._most_bytes = most_bytes

    def find(self, path: tuple[str, ...]) -> dict[str, Handler]:
        """Return what answers at a path, by HTTP method."""
        match path:
            case ("v2", "models", "stats"):
                return self._get("ModelStatistics", pb.ModelStatisticsRequest())
            case ("v2", "models", name, "versions", version, *rest):
                return self._of_model(name, version, tuple(rest))
            case ("v2", "models", name, *rest):
                return self._of_model(name, "", tuple(rest))
            case ("v2", *rest):
                return self._of_server(tuple(rest))
        return {}

    def _of_server(self, rest: tuple[str, ...]) -> dict[str, Handler]:
        match rest:
            case ():
                return self._get("ServerMetadata", pb.ServerMetadataRequest())
            case ("health", "live"):
                return self._get("ServerLive", pb.ServerLiveRequest(), "live")
            case ("health", "ready"):
                return self._get("ServerReady", pb.ServerReadyRequest(), "ready")
            case ("repository", "index"):
                return {"POST": _telling(self._index)}
        return {}

    def _of_model(self, name: str, version: str, rest: tuple[str, ...]) -> dict[str, Handler]:
        match rest:
            case ():
                return self._get("ModelMetadata", pb.ModelMetadataRequest(name=name, version=version))
            case ("ready",):
                return self._get("ModelReady", pb.ModelReadyRequest(name=name, version=version), "ready")
            case ("config",):
                return self._get("ModelConfig", pb.ModelConfigRequest(name=name, version=version), part="config")
            case ("stats",):
                return self._get("ModelStatistics", pb.ModelStatisticsRequest(name=name, version=version))
            case ("infer",):
                return {"POST": _telling(partial(self._infer, name, version))}
        return {}

    def _get(self, rpc: str, request: Message, condition: str = "", part: str = "") -> dict[str, Handler]:
        """Return the handler of a GET that asks an RPC.

        Args:
            rpc: its name.
            request: of it.
            condition: a field of the response without which the status is 503.
            part: the field of the response that is the answer; all of it if empty.
        """

        async def read() -> Message:
            return request

        async def handle(exchange: Exchange) -> None:
            response = await answer(exchange, self._methods[_SERVICE + rpc], read)
            status = _NOT_READY if condition and not getattr(response, condition) else 200
            told = as_plain(getattr(response, part) if part else response)
            await exchange.respond(status, _JSON, json.dumps(told, ensure_ascii=False).encode())

        handler = _telling(handle)
        return {"GET": handler, "HEAD": handler}

    async def _index(self, exchange: Exchange) -> None:
        async def read() -> Any:  # noqa: ANN401 - as every reader
            return JSON.parser(method)((await exchange.body(self._most_bytes)).strip() or b"{}")

        method = self._methods[_SERVICE + "RepositoryIndex"]
        response = await answer(exchange, method, read)
        models = [as_plain(model) for model in response.models]
        await exchange.respond(200, _JSON, json.dumps(models, ensure_ascii=False).encode())

    async def _infer(self, name: str, version: str, exchange: Exchange) -> None:
        as_bytes: frozenset[str] = frozenset()

        async def read() -> pb.ModelInferRequest:
            nonlocal as_bytes
            body = await exchange.body(round(JSON.growth * self._most_bytes))
            request, as_bytes = read_infer(body, exchange.headers.get(HEADER_LENGTH, ""), name, version)
            return request

        response = await answer(exchange, self._methods[_SERVICE + "ModelInfer"], read)
        body, head_bytes = write_infer(response, as_bytes)
        if head_bytes is None:
            await exchange.respond(200, _JSON, body)
        else:
            headers = [(HEADER_LENGTH, str(head_bytes))]
            await exchange.respond(200, "application/octet-stream", body, headers)


def _telling(handle: Handler) -> Handler:
    """Return a handler that tells errors as this protocol does."""

    async def telling(exchange: Exchange) -> None:
        try:
            await handle(exchange)
        except CallError as error:
            told = json.dumps({"error": error.text}).encode()
            await exchange.respond(http_status(error.code), _JSON, told, headers_of(error))

    return telling
