"""Errors, sorted by whose fault they are.

::

    RegraftError
    ├── CallerError                 the request is wrong; sending it again will not help
    │   ├── InvalidImageError       the bytes are not a picture we can classify
    │   ├── InvalidRequestError     a field or flag has a value that makes no sense
    │   ├── NotFoundError           no such model, version or job
    │   ├── ExistsError             a model that is there already, or in the trash
    │   ├── UnauthenticatedError    the caller is not known
    │   └── ForbiddenError          the caller may not
    ├── NotNowError                 the request is fine, the moment is not
    │   ├── OverloadedError         every permit is taken: try again later
    │   ├── DeadlineError           the caller's time ran out before the answer was ready
    │   ├── DrainingError           the server is stopping
    │   ├── SupersededError         a newer request of the same kind took its place
    │   └── PreconditionError       the state of the server or store forbids it; the text says what to do
    │       └── NoVersionError      a model that was created, and answers nothing before its first retrain
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
This module knows nothing of gRPC; ``serving/rpc/status.py`` holds the one table of status codes.
"""


class RegraftError(Exception):
    """The root of every error that Regraft raises on purpose."""


class CallerError(RegraftError):
    """A request that is wrong in itself."""


class InvalidImageError(CallerError):
    """Bytes that are no picture within the limits."""


class InvalidRequestError(CallerError):
    """A field or flag whose value makes no sense."""


class NotFoundError(CallerError):
    """A model, version or job that does not exist."""


class ExistsError(CallerError):
    """A model whose name another one has, in service or in the trash."""


class UnauthenticatedError(CallerError):
    """A caller that is not known."""


class ForbiddenError(CallerError):
    """A caller whose role does not reach that far."""


class NotNowError(RegraftError):
    """A request that is fine at another moment."""


class OverloadedError(NotNowError):
    """A bounded queue that is full.

    It is answered at once, so that the caller can go elsewhere.

    Attributes:
        retry_after_s: when it may be worth trying again, in seconds.
    """

    def __init__(self, text: str, retry_after_s: float = 0.1) -> None:
        """Keep the hint beside the text."""
        super().__init__(text)
        self.retry_after_s = retry_after_s


class DeadlineError(NotNowError):
    """A deadline that passed before the work was done."""


class DrainingError(NotNowError):
    """A server that shuts down and takes no new work."""


class SupersededError(NotNowError):
    """A request whose place a newer one of the same kind took."""


class PreconditionError(NotNowError):
    """A state of server or store that forbids the request."""


class NoVersionError(PreconditionError):
    """A model without a version; the text says what is missing."""

    def __init__(self, model: str, missing: str) -> None:
        """Say what is missing for its first version."""
        super().__init__(f"model {model!r} has no version yet: it needs {missing}")
        self.model = model


class OperatorError(RegraftError):
    """Something that the operator owns is broken or missing."""


class ArtifactError(OperatorError):
    """A model file or card that breaks the contract."""


class DatasetError(OperatorError):
    """A folder of labelled images cannot be trained on."""


class TrainingError(OperatorError):
    """A training run that came to nothing; earlier results stay."""


class StorageError(OperatorError):
    """A disk or database that refused; what was acknowledged stays."""


class LockedError(StorageError):
    """A lock that another process, named in the text, holds too long."""


class ProviderError(OperatorError):
    """An execution provider that cannot be used."""


class MissingPackageError(OperatorError):
    """An optional package that is not installed; the text names its extra."""


def first_line(error: BaseException) -> str:
    """Return an error's first line, its type if empty, to quote."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
