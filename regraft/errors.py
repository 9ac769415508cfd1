"""Everything that can go wrong, sorted by whose fault it is.

::

    RegraftError
    ├── CallerError                 the request is wrong; sending it again will not help
    │   ├── InvalidImageError       the bytes are not a picture we can classify
    │   ├── InvalidRequestError     a field or flag has a value that makes no sense
    │   ├── NotFoundError           no such model, version or job
    │   ├── UnauthenticatedError    nobody knows who asks
    │   └── ForbiddenError          whoever asks may not
    ├── NotNowError                 the request is fine, the moment is not
    │   ├── OverloadedError         every permit is taken: try again later
    │   ├── DeadlineError           the caller's time ran out before the answer was ready
    │   ├── DrainingError           the server is stopping
    │   └── PreconditionError       the state of the server or store forbids it; the text says what to do
    └── OperatorError               something the operator owns is broken
        ├── ArtifactError           a model file or its card cannot be used
        ├── DatasetError            a folder of labelled images cannot be trained on
        ├── TrainingError           a training run came to nothing
        ├── StorageError            the disk or database refused to write or read
        │   └── LockedError         somebody else holds a lock for too long: try again later
        ├── ProviderError           the execution provider that was asked for is not there
        └── MissingPackageError     an optional package has to be installed

The text of a ``RegraftError`` is written for the person who caused it, may be sent to clients, and names the
file, field or flag. Any other exception is a bug: clients get a fixed text and the log gets the traceback.
This module knows nothing of gRPC; ``serving/rpc/interceptor.py`` holds the one table of status codes.
"""


class RegraftError(Exception):
    """The root of every error that Regraft raises on purpose."""


class CallerError(RegraftError):
    """The request itself is wrong."""


class InvalidImageError(CallerError):
    """The bytes are not a picture within the limits; the text is the reason."""


class InvalidRequestError(CallerError):
    """A field or flag has a value that makes no sense."""


class NotFoundError(CallerError):
    """The model, version or job named does not exist."""


class UnauthenticatedError(CallerError):
    """The caller did not say who it is, or is not known."""


class ForbiddenError(CallerError):
    """The caller is known, but its role does not reach that far."""


class NotNowError(RegraftError):
    """The request is fine, the moment is not."""


class OverloadedError(NotNowError):
    """A bounded queue is full; answered at once so that the caller can go elsewhere.

    Attributes:
        retry_after_s: when it may be worth trying again, in seconds.
    """

    def __init__(self, text: str, retry_after_s: float = 0.1) -> None:
        """Keep the hint beside the text."""
        super().__init__(text)
        self.retry_after_s = retry_after_s


class DeadlineError(NotNowError):
    """The caller's deadline passed before the work was done."""


class DrainingError(NotNowError):
    """The server is shutting down and takes no new work."""


class PreconditionError(NotNowError):
    """The state of the server or store forbids the request."""


class OperatorError(RegraftError):
    """Something that the operator owns is broken or missing."""


class ArtifactError(OperatorError):
    """A model file, or the card inside it, breaks the contract."""


class DatasetError(OperatorError):
    """A folder of labelled images cannot be trained on."""


class TrainingError(OperatorError):
    """A training run came to nothing; what it had reached before is kept."""


class StorageError(OperatorError):
    """The disk or the database refused; nothing unacknowledged was kept, nothing acknowledged was lost."""


class LockedError(StorageError):
    """Lock held by another process for too long; nothing was done.

    The text names the process.
    """


class ProviderError(OperatorError):
    """The execution provider that was asked for cannot be used."""


class MissingPackageError(OperatorError):
    """An optional package is not installed; the text names the extra that brings it."""


def first_line(error: BaseException) -> str:
    """Return the first line of somebody else's error, or its type where it has no text, to quote in one of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
