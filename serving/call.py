"""The call that is being answered: the parts below the edge note here what metrics and log shall say of it.

gRPC answers each call in a task of its own, so a context variable finds it, from the tasks that the call starts too.
"""

from contextvars import ContextVar


class Call:
    """One RPC.

    Attributes:
        method: its name without the service's.
        model: whom it was found to be for; empty until then.
    """

    def __init__(self, method: str) -> None:
        """Begin a call."""
        self.method = method
        self.model = ""


_current: ContextVar[Call | None] = ContextVar("call", default=None)
set_current = _current.set
current = _current.get
