"""Context of a call by gRPC: deadline and address."""

import asyncio
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def deadline_of(context: Context) -> float | None:
    """Return the caller's deadline on the event loop's clock, or None."""
    remaining_s = context.time_remaining()
    return None if remaining_s is None else asyncio.get_running_loop().time() + remaining_s


def address_of(context: Context) -> str:
    """Return the address of a client, without its port.

    To be asked at the begin of a call: where one was cancelled gRPC crashes.
    """
    return unquote(context.peer()).rpartition(":")[0]
