"""Waiting for something to become so, with a deadline; and coroutines as tests."""

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec

PATIENCE_S: Final = 120.0
"""How long anything may take before a test gives up on it: on a busy machine a retrain takes ten times as long."""

_LOOK_EVERY_S: Final = 0.005

P = ParamSpec("P")


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of a coroutine; whatever the event loop itself complains of fails the test too."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(_watched(test(*args, **kwargs)))

    return run


async def _watched(test: Coroutine[Any, Any, None]) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    async with asyncio.timeout(2 * PATIENCE_S):
        await test
    assert not complaints, complaints


async def until(condition: Callable[[], object]) -> None:
    """Wait on the event loop until a condition holds."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_s, "it never became so"
        await asyncio.sleep(_LOOK_EVERY_S)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait in a thread until a condition holds."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_s, "it never became so"
        time.sleep(_LOOK_EVERY_S)
