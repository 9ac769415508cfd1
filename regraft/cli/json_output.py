"""Messages of the RPC surface as JSON, for machines."""

import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from regraft.client.message_values import bare_name
from regraft.v1 import classifier_pb2, models_pb2


def model_to_dict(model: models_pb2.Model) -> dict[str, Any]:
    """Return a model with its card as an object."""
    fields = message_to_dict(model)
    card = fields.pop("card_json")
    return {**fields, "card": json.loads(card) if card else {}}


def answer_to_dict(answer: classifier_pb2.ClassifyStreamResponse) -> dict[str, Any]:
    """Return a picture's answer, or its error.

    The id of the request is the name of the file.
    """
    if answer.HasField("error"):
        return {"file": answer.id, "error": answer.error.message}
    fields = message_to_dict(answer.response)
    timings = {stage.removesuffix("_ms"): value for stage, value in fields.pop("timings").items()}
    return {"file": answer.id, **fields, "timings_ms": timings}


def message_to_dict(message: Message) -> dict[str, Any]:
    """Return a message with every field, under the names of the proto."""
    fields: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _plain(message.DESCRIPTOR, fields)


def picture_to_dict(message: Message) -> dict[str, Any]:
    """Return a message about a picture, without its bytes."""
    return {key: value for key, value in message_to_dict(message).items() if key != "image"}


def _plain(message: Any, fields: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - a descriptor: protobuf has two classes
    """Return the fields of a message as the commands print them."""
    unset_times = {field.name: "" for field in message.fields if _is_time(field) and not field.is_repeated}
    return {**unset_times, **{key: _value(message.fields_by_name[key], value) for key, value in fields.items()}}


def _value(field: Any, value: Any) -> Any:  # noqa: ANN401 - a descriptor, likewise; JSON
    """Undo protobuf's habits in a value.

    They are 64-bit integers as text, times with Z, and enum values with their enum's name.
    """
    if isinstance(value, list):
        return [_value(field, item) for item in value]
    if isinstance(value, dict):
        return _plain(field.message_type, value)
    if _is_time(field):
        return datetime.fromisoformat(value).isoformat()
    if field.enum_type and isinstance(value, str):
        return bare_name(field.enum_type, value)
    return int(value) if field.cpp_type == field.CPPTYPE_INT64 else value


def _is_time(field: Any) -> bool:  # noqa: ANN401 - likewise
    return bool(field.message_type and field.message_type.full_name == Timestamp.DESCRIPTOR.full_name)


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON
    """Print one line of JSON."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not is_unicode), flush=True)  # noqa: T201 - rich would wrap and colour it


def print_result(result: Any, show: Callable[[Any], None], as_json: bool) -> None:  # noqa: ANN401 - any JSON
    """Print a result as JSON, or show it to people."""
    (print_json if as_json else show)(result)
