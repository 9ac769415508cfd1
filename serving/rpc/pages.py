"""Pages of a list: their sizes, and tokens of the next one."""

import base64
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Final, Protocol, TypeVar, cast

from google.protobuf.message import Message

from regraft.errors import InvalidRequestError

MAX_ANSWER_BYTES: Final = 3 * 2**20
"""Every client takes 4 MiB, unless it was told to take more; the rest is for what else an answer says."""
_QUERY_CHARACTERS: Final = 16
_NUMBER: Final = re.compile("[0-9]{1,18}")
"""What every database has room for."""

MessageT = TypeVar("MessageT", bound=Message)


class _Paged(Protocol):
    """A request of a page."""

    page_size: int
    page_token: str


def page_size(request: _Paged, most: int) -> int:
    """Return the number of entries asked for, no more than ``most``.

    Raises:
        InvalidRequestError: it is negative.
    """
    if request.page_size < 0:
        raise InvalidRequestError(f"page_size: {request.page_size}; it is 1 or more, or 0 for the server's own")
    return min(request.page_size or most, most)


def page_token(request: Message, *last: str) -> str:
    """Return the token of the page after the entry ``last``."""
    return base64.urlsafe_b64encode(json.dumps([_query(request), *last]).encode()).decode()


def page_start(request: Message, *, parts: int) -> list[str] | None:
    """Return the entry that a page follows, None for the first page.

    Args:
        request: of the page.
        parts: the number of texts that tell an entry.

    Raises:
        InvalidRequestError: the token is not ours, or of a request for something else.
    """
    if not (token := cast("_Paged", request).page_token):
        return None
    try:
        query, *last = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError):
        query, last = "", []
    if query != _query(request) or len(last) != parts or not all(isinstance(part, str) for part in last):
        raise InvalidRequestError(
            "page_token: it belongs to another request: repeat that one, or begin anew with an empty token"
        )
    return [str(part) for part in last]


def numbered_start(request: Message, *, parts: int) -> list[int] | None:
    """Return the numbers of the entry that a page follows.

    Arguments and errors are those of `page_start`.
    """
    if (start := page_start(request, parts=parts)) is None:
        return None
    if not all(map(_NUMBER.fullmatch, start)):
        raise InvalidRequestError("page_token: it is none of ours: begin anew with an empty one")
    return [*map(int, start)]


def _query(request: Message) -> str:
    """Return a digest of what a request asks for, whichever the page."""
    query = type(request)()
    query.CopyFrom(request)
    query.ClearField("page_size")
    query.ClearField("page_token")
    asked = request.DESCRIPTOR.full_name.encode() + query.SerializeToString(deterministic=True)
    return hashlib.sha256(asked).hexdigest()[:_QUERY_CHARACTERS]


async def as_many_as_fit(messages: AsyncGenerator[MessageT, None] | Iterable[MessageT]) -> list[MessageT]:
    """Return the first messages that fit one answer, at least one."""
    fitting: list[MessageT] = []
    remaining = MAX_ANSWER_BYTES
    async with aclosing(messages if isinstance(messages, AsyncGenerator) else _each(messages)) as coming:
        async for message in coming:
            remaining -= message.ByteSize()
            if remaining < 0 and fitting:
                break
            fitting.append(message)
    return fitting


async def _each(messages: Iterable[MessageT]) -> AsyncGenerator[MessageT, None]:
    for message in messages:
        yield message
