"""Status codes, texts and retry hints of errors.

`_STATUS` is the one table; an internal error's text stays in the log.
"""

import math
import re
from functools import cache
from typing import Final

import grpc

from regraft import errors
from regraft.v1.classifier_pb2 import PictureError

_STATUS: Final[dict[type[errors.RegraftError], grpc.StatusCode]] = {
    errors.CallerError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.ExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.DrainingError: grpc.StatusCode.UNAVAILABLE,
    errors.SupersededError: grpc.StatusCode.CANCELLED,
    errors.PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.OperatorError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StorageError: grpc.StatusCode.UNAVAILABLE,
}
"""By the nearest class: an error that is not named here has its parent's code."""

INTERNAL_TEXT: Final = "internal error; the server's log has the details"
_OUT_OF_MEMORY_TEXT: Final = "the server is out of memory: try again later"
_MEMORY_WAIT_S: Final = 1.0
_PUSHBACK: Final = "grpc-retry-pushback-ms"
_RETRY_AFTER: Final = "retry-after"
"""Seconds, as in HTTP."""
_WORD_BEGINS: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_MAX_PUSHBACK_S: Final = 10.0
_MAX_TEXT: Final = 500
"""Characters."""
_MAX_TEXT_BYTES: Final = 1_500
"""Each takes 3 where it is percent-encoded, and 1.3 in the details beside it."""


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """Return the status code and text that a client gets."""
    if isinstance(error, MemoryError):
        return grpc.StatusCode.RESOURCE_EXHAUSTED, _OUT_OF_MEMORY_TEXT
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind], _clipped(str(error))
    return grpc.StatusCode.INTERNAL, INTERNAL_TEXT


def reason_of(error: BaseException) -> str:
    """Return the word for programs: the error's class, such as INVALID_IMAGE."""
    if isinstance(error, MemoryError):
        return "OUT_OF_MEMORY"
    return _word(type(error).__name__) if isinstance(error, errors.RegraftError) else "INTERNAL"


@cache
def _word(name: str) -> str:
    """Return a class's name as a word for programs."""
    return _WORD_BEGINS.sub("_", name.removesuffix("Error")).upper()


def wait_of(error: BaseException) -> float | None:
    """Return the seconds after which a retry may work, or None."""
    if isinstance(error, errors.OverloadedError):
        return error.retry_after_s
    return _MEMORY_WAIT_S if isinstance(error, MemoryError) else None


def picture_error(error: BaseException) -> PictureError:
    """Return the message of an error of one picture among several."""
    code, text = status_of(error)
    return PictureError(code=code.value[0], message=text, reason=reason_of(error))


def retry_hint(error: BaseException) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata of an error that a retry may mend.

    gRPC's own retry policy waits as long as it is told (gRFC A6), until the deadline if need be, and its caller never
    hears why. So beyond a few seconds it is told not to try again, and people and programs read when it will fit.
    """
    if (wait_s := wait_of(error)) is None:
        return ()
    pushback = "-1" if wait_s > _MAX_PUSHBACK_S else str(max(1, round(1000 * wait_s)))
    return ((_PUSHBACK, pushback), (_RETRY_AFTER, str(max(1, math.ceil(wait_s)))))


def _clipped(text: str) -> str:
    """Shorten a text that may repeat a request: clients take headers of 8 kB."""
    short = text[:_MAX_TEXT].encode(errors="replace")[:_MAX_TEXT_BYTES].decode(errors="ignore")
    return text if len(short) == len(text) else f"{short}..."
