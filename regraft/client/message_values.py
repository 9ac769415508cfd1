"""Values of messages as all else has them: times as text, enum values as words."""

from datetime import UTC, datetime

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.timestamp_pb2 import Timestamp

_ZERO = "UNSPECIFIED"


def to_timestamp(text: str) -> Timestamp:
    """Convert a time in ISO 8601, as `regraft.files.utc_now` writes it."""
    timestamp = Timestamp()
    timestamp.FromDatetime(datetime.fromisoformat(text))
    return timestamp


def time_text(timestamp: Timestamp) -> str:
    """Convert back, to the same text; empty where the time is not set."""
    return timestamp.ToDatetime(UTC).isoformat() if timestamp.ByteSize() else ""


def word_of(enum: EnumTypeWrapper, value: int) -> str:
    """Return the name of a value without its enum's, such as ACCEPTED."""
    return enum.Name(value).removeprefix(enum.Name(0).removesuffix(_ZERO))
