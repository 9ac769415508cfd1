"""Values of messages as all else has them.

Times are text, enum values are words.
"""

from datetime import UTC, datetime

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.timestamp_pb2 import Timestamp

_ZERO = "UNSPECIFIED"


def to_timestamp(text: str) -> Timestamp:
    """Convert a time in ISO 8601, as `regraft.files.utc_now` writes it.

    It is of UTC unless it says otherwise.
    """
    timestamp = Timestamp()
    timestamp.FromDatetime(datetime.fromisoformat(text))
    return timestamp


def time_text(timestamp: Timestamp) -> str:
    """Convert back, to the same text; an unset time is empty."""
    return timestamp.ToDatetime(UTC).isoformat() if timestamp.ByteSize() else ""


def word_of(enum: EnumTypeWrapper, value: int) -> str:
    """Return the name of a value without its enum's, such as ACCEPTED."""
    return bare_name(enum.DESCRIPTOR, enum.Name(value))


def bare_name(enum: EnumDescriptor, name: str) -> str:
    """Strip the name of a value of its enum's name."""
    return name.removeprefix(enum.values_by_number[0].name.removesuffix(_ZERO))
