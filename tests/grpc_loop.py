"""The one event loop of a test process for everything of ``grpc.aio``, which cannot do well with several.

Its completion queue is shared by all loops of a process, and hands late events of a loop that was closed to the next.
"""

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from tests.waiting import PATIENCE_S

P = ParamSpec("P")
T = TypeVar("T")


class GrpcLoop:
    """An event loop in a thread of its own; ``complaints`` holds whatever it complained of."""

    def __init__(self) -> None:
        self.complaints: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, context: self.complaints.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever, name="grpc-loop", daemon=True)
        self._thread.start()

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        """Begin a coroutine, and return at once."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return self.begin(coroutine).result(2 * PATIENCE_S)

    def close(self) -> None:
        """End the thread."""
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()


@functools.cache
def grpc_loop() -> GrpcLoop:
    """Return the loop, which starts when it is first needed."""
    return GrpcLoop()


def asynchronous_with_grpc(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of a coroutine that uses ``grpc.aio``; whatever the loop complains of fails it too."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        loop = grpc_loop()
        before = len(loop.complaints)
        loop.run(test(*args, **kwargs))
        assert not loop.complaints[before:], loop.complaints[before:]

    return run
