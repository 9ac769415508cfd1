"""HTTP statuses of gRPC's codes, and headers about retries."""

from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from regraft.errors import RegraftError
from serving.http.context import CallError
from serving.rpc.error_details import DETAILS_KEY, trailers_of
from serving.rpc.status import status_of

Code = grpc.StatusCode

_HTTP: Final = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
"""As Connect has them; all others are 500."""


def http_status(code: grpc.StatusCode) -> int:
    """Return the HTTP status of a code."""
    return _HTTP.get(code, 500)


def call_error(error: RegraftError) -> CallError:
    """Return an error that came before a call as that of one."""
    return CallError(*status_of(error), trailers_of(error, None))


def details_of(error: CallError) -> list[Packed]:
    """Return the details of an error for programs."""
    for key, value in error.trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            return list(Status.FromString(value).details)
    return []


def reason_in(error: CallError) -> str:
    """Return an error's word for programs, such as INVALID_IMAGE, if any."""
    info = ErrorInfo()
    return info.reason if any(detail.Unpack(info) for detail in details_of(error)) else ""


def headers_of(error: CallError) -> list[tuple[str, str]]:
    """Return the headers about retries and authentication."""
    headers = [(key, str(value)) for key, value in error.trailers if key == "retry-after"]
    if error.code is Code.UNAVAILABLE and not headers:
        headers.append(("retry-after", "1"))
    if error.code is Code.UNAUTHENTICATED:
        headers.append(("www-authenticate", "Bearer"))
    return headers
