from collections.abc import Iterator

import grpc
import pytest

from regraft import errors
from serving.rpc.status import INTERNAL_TEXT, retry_hint, status_of

Code = grpc.StatusCode
TABLE = {
    errors.RegraftError: Code.INTERNAL,
    errors.CallerError: Code.INVALID_ARGUMENT,
    errors.InvalidImageError: Code.INVALID_ARGUMENT,
    errors.InvalidRequestError: Code.INVALID_ARGUMENT,
    errors.NotFoundError: Code.NOT_FOUND,
    errors.ExistsError: Code.ALREADY_EXISTS,
    errors.UnauthenticatedError: Code.UNAUTHENTICATED,
    errors.ForbiddenError: Code.PERMISSION_DENIED,
    errors.NotNowError: Code.INTERNAL,
    errors.OverloadedError: Code.RESOURCE_EXHAUSTED,
    errors.DeadlineError: Code.DEADLINE_EXCEEDED,
    errors.DrainingError: Code.UNAVAILABLE,
    errors.SupersededError: Code.CANCELLED,
    errors.PreconditionError: Code.FAILED_PRECONDITION,
    errors.NoVersionError: Code.FAILED_PRECONDITION,
    errors.OperatorError: Code.FAILED_PRECONDITION,
    errors.ArtifactError: Code.FAILED_PRECONDITION,
    errors.DatasetError: Code.FAILED_PRECONDITION,
    errors.TrainingError: Code.FAILED_PRECONDITION,
    errors.StorageError: Code.UNAVAILABLE,
    errors.LockedError: Code.UNAVAILABLE,
    errors.ProviderError: Code.FAILED_PRECONDITION,
    errors.MissingPackageError: Code.FAILED_PRECONDITION,
}
RAISED = [kind for kind, code in TABLE.items() if code is not Code.INTERNAL and kind is not errors.NoVersionError]
"""Those that are raised with their own text; one is made of what a model lacks."""
OPERATORS_OWN = "/home/operator/models"


def tree(kind: type[errors.RegraftError]) -> Iterator[type[errors.RegraftError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def test_every_error_is_in_the_table_of_this_test() -> None:
    assert set(tree(errors.RegraftError)) == set(TABLE)


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_an_error_has_its_code_and_its_own_text(kind: type[errors.RegraftError]) -> None:
    assert status_of(kind("the text")) == (TABLE[kind], "the text")


def test_who_comes_while_memory_is_short_may_try_again() -> None:
    error = MemoryError("of 12 MB for a picture")

    assert status_of(error) == (Code.RESOURCE_EXHAUSTED, "the server is out of memory: try again later")
    assert dict(retry_hint(error)) == {"grpc-retry-pushback-ms": "1000", "retry-after": "1"}


def test_an_error_that_is_not_in_the_table_has_its_parents_code() -> None:
    class StillMoreOverloadedError(errors.OverloadedError):
        pass

    assert status_of(StillMoreOverloadedError("too much"))[0] is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(OPERATORS_OWN),
        KeyError(OPERATORS_OWN),
        OSError(2, OPERATORS_OWN),
        ExceptionGroup(OPERATORS_OWN, [ValueError(OPERATORS_OWN)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_error_is_internal_and_its_text_stays_here(error: Exception) -> None:
    assert status_of(error) == (Code.INTERNAL, INTERNAL_TEXT)
    assert OPERATORS_OWN not in INTERNAL_TEXT
