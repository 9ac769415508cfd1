"""Connections of the load generator, and its encoded requests."""

import asyncio
from types import TracebackType
from typing import Final, NamedTuple, Self

import grpc
import grpc.aio

from regraft.client.channel import metadata_of, open_aio_channel
from regraft.client.client import RemoteError, nobody_answers
from regraft.client.connection import Connection
from regraft.v1 import classifier_pb2

STAGES: Final = tuple(field.name.removesuffix("_ms") for field in classifier_pb2.Timings.DESCRIPTOR.fields)
"""The stages that a server times, in the order of the proto."""

OK: Final = "OK"

_METHOD: Final = "/regraft.v1.Classifier/Classify"
_CONNECT_S: Final = 10.0


class Answer(NamedTuple):
    """The answer to a request, or its error.

    ``code`` is gRPC's name; without OK only ``text`` says more. ``stages_ms`` goes with `STAGES`.
    """

    code: str
    text: str = ""
    version: int = 0
    stages_ms: tuple[float, ...] = ()


def encode_request(image: bytes, name: str) -> bytes:
    """Encode a request once for each picture, to send cheaply."""
    request = classifier_pb2.ClassifyRequest(image=image, name=name)
    return request.SerializeToString()


class Channels:
    """Connections to one server; an asynchronous context manager."""

    def __init__(self, server: Connection, count: int) -> None:
        """Prepare connections to ``server``."""
        self._target = server.target
        self._metadata = metadata_of(server)
        self._channels = [open_aio_channel(server) for _ in range(count)]
        self._calls = [channel.unary_unary(_METHOD, _as_it_is, _decode) for channel in self._channels]

    async def __aenter__(self) -> Self:
        """Connect all of them, so that no request pays for it.

        Raises:
            RemoteError: nobody is there.
        """
        try:
            async with asyncio.timeout(_CONNECT_S):
                reached = await asyncio.gather(*map(_connect, self._channels))
        except TimeoutError:
            reached = [False]
        except BaseException:
            await self._close()
            raise
        if not all(reached):
            await self._close()
            raise RemoteError("UNAVAILABLE", nobody_answers(self._target))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._close()

    async def classify(self, number: int, request: bytes, timeout_s: float) -> Answer:
        """Send a request; its number chooses the connection."""
        call = self._calls[number % len(self._calls)]
        try:
            return await call(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            return Answer(error.code().name, error.details() or "")

    async def _close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))


async def _connect(channel: grpc.aio.Channel) -> bool:
    """Connect at the first attempt, where gRPC would go on."""
    state = channel.get_state(try_to_connect=True)
    while state not in {grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE}:
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
    return state is grpc.ChannelConnectivity.READY


def _as_it_is(request: bytes) -> bytes:
    return request


def _decode(data: bytes) -> Answer:
    response = classifier_pb2.ClassifyResponse.FromString(data)
    timings = response.timings
    return Answer(OK, "", response.version, tuple(getattr(timings, f"{stage}_ms") for stage in STAGES))
