"""Messages as JSON or protobuf, and the limits of what is parsed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from regraft.errors import InvalidRequestError
from serving.http.methods import Method

MessageT = TypeVar("MessageT", bound=Message)

_MAX_PARTS: Final = 20_000
"""Objects, lists and commas of a JSON text: each takes a byte or two there, and a hundred in memory."""


@dataclass(frozen=True)
class Codec:
    """A form of messages.

    Attributes:
        name: as in ``application/NAME``.
        parser: returns of a method what makes a request, or an error, of bytes.
        serializer: likewise bytes of a response.
        growth: how much larger bytes may be than in protobuf.
    """

    name: str
    parser: Callable[[Method], Callable[[bytes], Any]]
    serializer: Callable[[Method], Callable[[Any], bytes]]
    growth: float


def _json_parser(method: Method) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:  # noqa: ANN401 - any message, or an error
        try:
            return from_json(data, method.request(), ignore_unknown=True)
        except InvalidRequestError as error:
            return error

    return parse


def from_json(data: bytes, message: MessageT, *, ignore_unknown: bool = False) -> MessageT:
    """Read JSON into a message, and return it.

    Raises:
        InvalidRequestError: it is no such message, or a swarm; see `check_parts`.
    """
    check_parts(data)
    try:
        json_format.Parse(data, message, ignore_unknown_fields=ignore_unknown)
    # Whatever json_format lets through where types do not fit: it is the caller's text that is wrong.
    except (json_format.Error, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidRequestError(f"the body is no such message in JSON: {error}") from error
    return message


def as_json(message: Message) -> bytes:
    """Return a message as JSON, with fields of default values."""
    plain = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def check_parts(data: bytes, most: int = _MAX_PARTS) -> None:
    """Check that a JSON text is no swarm of tiny values.

    Raises:
        InvalidRequestError: it is.
    """
    if data.count(b",") + data.count(b"{") + data.count(b"[") > most:
        raise InvalidRequestError(f"the JSON text has more than {most} values")


JSON: Final = Codec("json", _json_parser, lambda _method: as_json, 4 / 3)
PROTO: Final = Codec("proto", lambda method: method.parse, lambda method: method.serialize, 1)
CODECS: Final = {codec.name: codec for codec in (JSON, PROTO)}
