"""Child process that answers in JSON.

A thread waits for it, and the event loop may end it.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from regraft import errors
from regraft.errors import RegraftError, TrainingError
from serving.threads import Pool

T = TypeVar("T")


class Child:
    """A child process that has not begun yet."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run ``command`` once."""
        self.is_over = False
        self._command, self._environment = command, environment
        self._process: subprocess.Popen[bytes] | None = None

    @asynccontextmanager
    async def at_work(self, pool: Pool, work: Callable[[], T]) -> AsyncIterator[asyncio.Task[T]]:
        """Do ``work`` in a thread, which runs the process.

        Behind the block both have ended, whatever happens.
        """
        has_begun = False

        def begin() -> T:
            nonlocal has_begun
            has_begun = True
            return work()

        task = asyncio.create_task(pool.run(begin))
        try:
            yield task
        finally:
            self.end()
            if not has_begun:
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @contextmanager
    def running(self, *further: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the process, with further arguments, for the block.

        Its standard output is a pipe.
        """
        nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
        command = [*self._command, *further]
        with subprocess.Popen(command, env=self._environment, stdin=nothing, stdout=pipe) as process:
            self._process = process
            if self.is_over:  # `end` may not have seen it
                process.kill()
            try:
                yield process
            except BaseException:
                process.kill()
                raise

    def end(self) -> None:
        """End the process, or see that it is killed as it begins.

        Safe in any thread.
        """
        self.is_over = True
        if self._process:
            self._process.kill()


def answer_of(said: Mapping[str, Any], process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """Return the answer in a child's last words, or raise its error.

    Args:
        said: ``{"answer": ...}`` or ``{"error": NAME, "text": ...}``, with a name of `regraft.errors`.
        process: that said so.

    Raises:
        TrainingError: it said neither.
    """
    if "error" in said:
        kind = getattr(errors, said["error"], TrainingError)
        raise (kind if issubclass(kind, RegraftError) else TrainingError)(said["text"])
    if "answer" not in said:
        how = f"its process ended with exit code {process.returncode}"
        raise TrainingError(f"{how}; the server's log has the details")
    answer: dict[str, Any] = said["answer"]
    return answer
