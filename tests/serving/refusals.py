"""Calls that a server refuses."""

from collections.abc import Callable

import pytest

from regraft.client.client import RemoteError


def fails_with(call: Callable[..., object], **arguments: object) -> RemoteError:
    """Make a call that fails, and return its error."""
    with pytest.raises(RemoteError) as failure:
        call(**arguments)
    return failure.value
