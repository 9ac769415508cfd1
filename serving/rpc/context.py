"""Context of a call: deadline, metadata and address, by gRPC or HTTP."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import NoReturn, Protocol, TypeAlias
from urllib.parse import unquote

import grpc

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


class Context(Protocol):
    """Context of a call: what is known of it, and its end.

    gRPC's own is one.
    """

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None where there is none."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return what the caller sent before the message, keys in lower case."""

    def peer(self) -> str:
        """Return the caller's address, as in ipv4:127.0.0.1:40022."""

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return the names of the caller's certificate, if TLS has verified one."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = (), /) -> NoReturn:
        """End the call with a status, by raising."""


def deadline_of(context: Context) -> float | None:
    """Return the caller's deadline on the event loop's clock, or None."""
    remaining_s = context.time_remaining()
    return None if remaining_s is None else asyncio.get_running_loop().time() + remaining_s


def address_of(context: Context) -> str:
    """Return the address of a client, without its port.

    To be asked at the begin of a call: where one was cancelled gRPC crashes.
    """
    return unquote(context.peer()).rpartition(":")[0]
