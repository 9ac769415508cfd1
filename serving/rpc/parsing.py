"""Parsing of clients' bytes."""

from collections.abc import Callable, Sized
from typing import Any, Final

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import DecodeError

from regraft.errors import InvalidRequestError

_MAX_FIELDS: Final = 10_100
"""Of one message, not counting those within others; ours have a dozen, or 10,000 hashes. Each may be 2 bytes here, and
200 in memory."""

_MAX_BATCH: Final = 256

_FIXED: Final = {1: 8, 5: 4}  # bytes, by wire type


def check_batch(requests: Sized) -> None:
    """Refuse a message of none, or of more than it may hold.

    Raises:
        InvalidRequestError: it has as many.
    """
    if not 1 <= len(requests) <= _MAX_BATCH:
        raise InvalidRequestError(f"requests: {len(requests)} pictures; a message holds 1 to {_MAX_BATCH}")


def check_choice(field: str, value: int, enum: EnumTypeWrapper) -> None:
    """Refuse a value that an enumeration of this contract does not have.

    Raises:
        InvalidRequestError: the text names the field, and the values.
    """
    if value not in enum.values():
        raise InvalidRequestError(f"{field}: {value} is none of {', '.join(enum.keys()[1:])}")


def lenient(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a parser that returns errors: of raised ones gRPC makes UNKNOWN.

    Bytes that are no message are the caller's fault.
    """

    def read(data: bytes) -> Any:  # noqa: ANN401 - any message, or an error
        try:
            if _is_swarm(data):
                return InvalidRequestError(f"the message has more than {_MAX_FIELDS} fields")
            return parse(data)
        except (DecodeError, IndexError) as error:
            return InvalidRequestError(f"the bytes are no such message: {error}")

    return read


def _is_swarm(data: bytes) -> bool:
    position = count = 0
    while position < len(data) and count <= _MAX_FIELDS:
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == 0:
            _, position = _varint(data, position)
        elif kind == 2:
            length, position = _varint(data, position)
            position += length
        elif kind in _FIXED:
            position += _FIXED[kind]
        else:
            return False  # groups, which none of ours has: the parser may say what it thinks of them
        count += 1
    return count > _MAX_FIELDS


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, position
