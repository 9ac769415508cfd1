"""Cancellation of work in threads that nobody waits for.

It then has no effect. A thread cannot be cancelled. What waits for a lock, or is about to commit, asks here instead.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from regraft.errors import DeadlineError


def _always() -> bool:
    return True


_is_wanted: Final[ContextVar[Callable[[], bool]]] = ContextVar("is_wanted", default=_always)


def set_wanted(is_wanted: Callable[[], bool]) -> None:
    """Add a condition for this context's work, asked in any thread."""
    before = _is_wanted.get()
    _is_wanted.set(lambda: is_wanted() and before())


def check_wanted() -> None:
    """Refuse to go on with work that nobody waits for.

    Raises:
        DeadlineError: the caller's deadline passed, or the caller left.
    """
    if not _is_wanted.get()():
        raise DeadlineError("nobody waits for this any more: it was not done")
