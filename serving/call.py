"""The call that is being answered: the parts below the edge note here what metrics, log and trace shall say of it.

gRPC answers each call in a task of its own, so a context variable finds it, from the tasks that the call starts too.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from serving.access import calling

TRACEPARENT: Final = "traceparent"
_VALID: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class Call:
    """One RPC.

    Attributes:
        method: its name without the service's.
        model: whom it was found to be for; empty until then.
        trace_id: of the client's trace (W3C Trace Context), 32 hexadecimal digits; empty where it has none.
        address: whom it is from.
        request: its one message, once that was read.
        on_answer: told the seconds of the stages of every picture that is answered, if anybody wants to know.
    """

    def __init__(self, method: str, trace_id: str = "", address: str = "") -> None:
        """Begin a call."""
        self.method = method
        self.address = address
        self.model = ""
        self.trace_id = trace_id
        self.request: Any = None
        self.on_answer: Callable[[Mapping[str, float]], None] | None = None


_current: ContextVar[Call | None] = ContextVar("call", default=None)
set_current = _current.set
current = _current.get


def caller() -> str:
    """Return who calls: by name where callers have one, else by address."""
    call = current()
    return calling.get().name or (call.address if call else "")


def trace_id_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the id of the trace that a client's metadata names, or an empty text."""
    for key, value in metadata:
        if key == TRACEPARENT:
            found = _VALID.fullmatch(str(value))
            return found[1] if found else ""
    return ""


class TraceFilter(logging.Filter):
    """Gives every record of a handler ``trace_id``: that of the call that is answered, or an empty text."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add it, and let the record through."""
        call = current()
        record.trace_id = call.trace_id if call else ""
        return True
