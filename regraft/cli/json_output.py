"""Messages of the RPC surface as JSON, for machines."""

import json
import sys
from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

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
    return {key: _numbers(message.DESCRIPTOR.fields_by_name[key], value) for key, value in fields.items()}


def picture_to_dict(message: Message) -> dict[str, Any]:
    """Return a message about a picture, without its bytes."""
    return {key: value for key, value in message_to_dict(message).items() if key != "image"}


def _numbers(field: Any, value: Any) -> Any:  # noqa: ANN401 - a descriptor, of which protobuf has two classes; JSON
    """Undo protobuf's habit of writing 64-bit integers as text."""
    if isinstance(value, list):
        return [_numbers(field, item) for item in value]
    if isinstance(value, dict):
        return {key: _numbers(field.message_type.fields_by_name[key], item) for key, item in value.items()}
    return int(value) if field.cpp_type == field.CPPTYPE_INT64 else value


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON
    """Print one line of JSON."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not is_unicode), flush=True)  # noqa: T201 - rich would wrap and colour it


def print_result(result: Any, show: Callable[[Any], None], as_json: bool) -> None:  # noqa: ANN401 - any JSON
    """Print a result as JSON, or show it to people."""
    (print_json if as_json else show)(result)
