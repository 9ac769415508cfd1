"""HTTP statuses of gRPC's codes, and the headers that say when to try again."""

from typing import Final

import grpc

from regraft.errors import RegraftError
from serving.http.context import CallError
from serving.rpc.status import retry_hint, status_of

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
    return CallError(*status_of(error), retry_hint(error))


def headers_of(error: CallError) -> list[tuple[str, str]]:
    """Return the headers that say when to try again, or how to be known."""
    headers = [(key, str(value)) for key, value in error.trailers if key == "retry-after"]
    if error.code is Code.UNAVAILABLE and not headers:
        headers.append(("retry-after", "1"))
    if error.code is Code.UNAUTHENTICATED:
        headers.append(("www-authenticate", "Bearer"))
    return headers
