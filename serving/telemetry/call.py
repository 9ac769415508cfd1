"""The current call, with the facts for metrics, log and trace.

gRPC answers each call in a task of its own, so a context variable finds it, from the tasks that the call starts too.
"""

import asyncio
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextvars import ContextVar, copy_context
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol, TypeVar

from regraft.cancellation import set_wanted
from regraft.errors import ForbiddenError

TRACEPARENT: Final = "traceparent"
_VALID: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class Call:
    """One RPC.

    Attributes:
        method: its name without the service's.
        model: its name, once that is resolved.
        trace_id: of the client's trace (W3C Trace Context), 32 hexadecimal digits; empty where it has none.
        address: whom it is from.
        caller: the name of the caller; empty where nobody is asked.
        models: patterns of the models that the caller may name; None: any.
        request: its one message, once that was read.
        effect: its changes, for the audit.
        on_answer: called with the seconds of the stages of every answered picture.
    """

    def __init__(self, method: str, trace_id: str = "", address: str = "") -> None:
        """Begin a call."""
        self.method = method
        self.address = address
        self.caller = ""
        self.models: tuple[str, ...] | None = None
        self.model = ""
        self.trace_id = trace_id
        self.request: Any = None
        self.effect: dict[str, str | int] = {}
        self.on_answer: Callable[[Mapping[str, float]], None] | None = None


T = TypeVar("T")

_current: ContextVar[Call | None] = ContextVar("call", default=None)
set_current = _current.set
current = _current.get


class HasDeadline(Protocol):
    """A context that knows its caller's deadline, as gRPC's does."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None where there is none."""


def note_effect(**effect: str | int) -> None:
    """Note a change that the current call has made."""
    if call := current():
        call.effect.update(effect)


def forget_request() -> None:
    """Forget the message of a call that is a batch of pictures.

    The audit would write them; see `note_first`.
    """
    if call := current():
        call.request = None


def note_first(request: Any) -> None:  # noqa: ANN401 - any message with a picture
    """Note the first message of a stream or batch for all, without its picture."""
    if (call := current()) and call.request is None:
        fields = {field.name: value for field, value in request.ListFields() if field.name != "image"}
        call.request = type(request)(**fields)


async def shield(change: Coroutine[Any, Any, T], context: HasDeadline) -> T:
    """Await a change to its end, even if its call is cancelled.

    A change that has not begun to write when the deadline passes, or the caller leaves, is not made; of any other the
    audit tells that it was.
    """
    left_s = context.time_remaining()
    until_s = math.inf if left_s is None else time.monotonic() + left_s
    is_cancelled = threading.Event()
    within = copy_context()
    within.run(set_wanted, lambda: not is_cancelled.is_set() and time.monotonic() < until_s)
    task = asyncio.create_task(change, context=within)
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            is_cancelled.set()
    return task.result()


def caller() -> str:
    """Return the caller's name, or else its address."""
    call = current()
    return (call.caller or call.address) if call else ""


def may_name(model: str) -> bool:
    """Return whether the caller may name a model.

    What no call asks for may be any.
    """
    call = current()
    patterns = call.models if call else None
    return patterns is None or any(fnmatchcase(model, pattern) for pattern in patterns)


def may_name_any() -> bool:
    """Return whether the caller may name all models."""
    call = current()
    return call is None or call.models is None


def check_may_name(model: str) -> None:
    """Refuse a model that the caller may not name, there or not.

    Raises:
        ForbiddenError: its line in the file of callers names others.
    """
    if not may_name(model) and (call := current()):
        only = ",".join(call.models or ())
        raise ForbiddenError(f"{call.caller} may not name the model {model!r}, only {only}")


def actor(claim: str) -> str:
    """Return the author of a change, for a history.

    A name that the request claims is believed only where nobody is asked for a token.
    """
    call = current()
    return (call and call.caller) or claim or "unknown"


def trace_id_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the trace id of a client's metadata, or an empty text."""
    for key, value in metadata:
        if key == TRACEPARENT:
            match = _VALID.fullmatch(str(value))
            return match[1] if match else ""
    return ""


class TraceFilter(logging.Filter):
    """A filter that gives each log record the current call's ``trace_id``."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add it, and let the record through."""
        call = current()
        record.trace_id = call.trace_id if call else ""
        return True
