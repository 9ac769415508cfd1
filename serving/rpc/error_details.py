"""Details of errors for programs, as google.rpc defines them: reason, wait, fields."""

import re
from functools import lru_cache
from typing import Any, Final

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from regraft.errors import CallerError, InvalidImageError
from serving.rpc.status import reason_of, retry_hint, status_of, wait_of
from serving.telemetry.call import Call

DETAILS_KEY: Final = "grpc-status-details-bin"
_DOMAIN: Final = "regraft"
_NAMES_FIELD: Final = re.compile(r"[a-z0-9_.]+(?=: | ['\"])")
_MAX_DESCRIPTION: Final = 100
"""Characters: the whole text is the status's message, and clients take 8 kB of headers."""


def trailers_of(error: BaseException, call: Call | None, request: Any = None) -> tuple[tuple[str, str | bytes], ...]:  # noqa: ANN401 - any message, or none
    """Return the trailing metadata of an error: retry hints and details.

    Args:
        error: that ends a call.
        call: if there is one of ours.
        request: its message, as far as it was read.
    """
    code, text = status_of(error)
    status = Status(code=code.value[0], message=text, details=[_info(reason_of(error), call.model if call else "")])
    if wait_s := wait_of(error):
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(round(1e9 * wait_s))
        status.details.append(_packed(retry))
    if isinstance(error, CallerError) and (field := _field_of(error, text, request)):
        description = text.removeprefix(f"{field}: ")[:_MAX_DESCRIPTION]
        violation = BadRequest.FieldViolation(field=field, description=description)
        status.details.append(_packed(BadRequest(field_violations=[violation])))
    return (*retry_hint(error), (DETAILS_KEY, status.SerializeToString()))


@lru_cache(maxsize=256)  # whoever is refused in a full server costs as little as may be
def _info(reason: str, model: str) -> Packed:
    return _packed(ErrorInfo(reason=reason, domain=_DOMAIN, metadata={"model": model} if model else None))


def _packed(detail: Message) -> Packed:
    packed = Packed()
    packed.Pack(detail)
    return packed


def _field_of(error: CallerError, text: str, request: Any) -> str:  # noqa: ANN401 - any message, or none
    """Return the field that an error is about, such as limits.max_drop.

    It is empty where the error is about none, or the request has no such field.
    """
    named = _NAMES_FIELD.match(text)
    path = named[0] if named else "image" if isinstance(error, InvalidImageError) else ""
    message = getattr(request, "DESCRIPTOR", None)
    for name in path.split("."):
        field = message.fields_by_name.get(name) if message else None
        if field is None:
            return ""
        message = field.message_type
    return path
