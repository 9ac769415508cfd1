"""Rights by model: a check of the names in messages.

By the contract's convention a model is the field ``name`` of a request, ``model_name`` of the Open Inference Protocol;
requests in a request (``request``, ``requests``) have their own. So a new RPC is covered on the day it comes.
"""

from collections.abc import AsyncIterable, Iterator
from typing import Any, Final, Self

from google.protobuf.message import Message

from regraft.label_rules import nfc
from serving.telemetry.call import check_may_name, current, may_name

NAMES: Final = ("name", "model_name")
"""Fields of requests that name a model."""
INNER: Final = ("request", "requests")
"""Fields of requests that hold others."""


class CheckedMessages:
    """The messages of a call, which may name the caller's models alone.

    It keeps none of them.
    """

    def __init__(self, messages: AsyncIterable[Any]) -> None:
        """Check ``messages``; errors among them, of bytes that are none, pass."""
        self._messages = aiter(messages)

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - any message, or an error
        """Return the next message.

        Raises:
            ForbiddenError: it names a model that the caller may not name.
        """
        message = await anext(self._messages)
        if isinstance(message, Message):
            for owner, field in _names_in(message):
                _check(owner, field)
        return message


def _check(owner: Message, field: str) -> None:
    name = nfc(getattr(owner, field))
    if not may_name(name) and (call := current()):
        call.request = type(owner)(**{field: name})  # of all that the message holds, this is for the audit
    check_may_name(name)


def _names_in(message: Message) -> Iterator[tuple[Message, str]]:
    """Yield each message, and its field, that names a model."""
    fields = message.DESCRIPTOR.fields_by_name
    for field in NAMES:
        if field in fields and getattr(message, field):
            yield message, field
    for field in INNER:
        if field in fields and fields[field].message_type:
            inner = getattr(message, field)
            for each in inner if fields[field].is_repeated else [inner]:
                yield from _names_in(each)
