"""Etags: names of states, to which a change can be bound."""

import hashlib
from typing import Final

from regraft.errors import PreconditionError

_CHARACTERS: Final = 16


def etag_of(*state: str | int | None) -> str:
    """Return the name of a state."""
    return hashlib.sha256(repr(state).encode()).hexdigest()[:_CHARACTERS]


def check_etag(stated: str, now: str, what: str) -> None:
    """Refuse a change for another state; empty is for any.

    Raises:
        PreconditionError: the state is another by now.
    """
    if stated and stated != now:
        raise PreconditionError(f"etag: {what} has changed since ({stated!r} is {now!r} now): look again")
