"""Looks at next heads, by short-lived child processes below the requests.

A child is ``python -m training.preview``, at low priority, within limits of time and memory. It writes nothing, so it
can be killed at any moment: it is when its caller leaves, and when a newer look of the same kind at the same model
comes. One runs at a time, so that whatever is asked costs no more than a retrain does.
"""

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from regraft import errors
from regraft.errors import RegraftError, SupersededError, TrainingError
from regraft.image.limits import DEFAULT_LIMITS, ImageLimits
from regraft.safe_path import module_command
from serving.threads import Threads

LIMIT_S: Final = 120.0
_KILL_AFTER_S: Final = 5.0
"""Beyond the child's own limit, which it cannot keep while it is stopped."""


class Look(StrEnum):
    """What a child looks at; its ``--what``."""

    PREVIEW = "preview"
    CURVE = "curve"


class Previews:
    """A runner of looks; use it from one event loop."""

    def __init__(
        self,
        child_arguments: list[str],
        threads: Threads,
        *,
        database: str = "",
        limits: ImageLimits = DEFAULT_LIMITS,
        environment: Mapping[str, str] = MappingProxyType({}),
        limit_s: float = LIMIT_S,
    ) -> None:
        """Make a runner.

        Args:
            child_arguments: flags that tell a child where the stores are, and how much of the machine it may have.
            threads: wait for the children.
            database: as of `serving.retraining.jobs.JobRunner`, and so the next two.
            limits: see there.
            environment: see there.
            limit_s: the longest that a look may take.
        """
        self._command = [*module_command("training.preview"), *child_arguments, "--minutes", str(limit_s / 60)]
        self._environment = {**os.environ, **limits.environment(), **environment, "REGRAFT_DATABASE": database}
        self._threads = threads
        self._limit_s = limit_s
        self._looks: dict[tuple[str, Look], asyncio.Task[dict[str, Any]]] = {}
        self._superseded: set[asyncio.Task[dict[str, Any]]] = set()

    async def look(self, model: str, what: Look) -> dict[str, Any]:
        """Look at a model's next head, in place of an earlier look of this kind.

        Raises:
            SupersededError: a newer look came.
            OverloadedError: too many wait.
            TrainingError: it took too long or too much, or its process died.
            RegraftError: what the child says, such as that something is missing.
        """
        key = model, what
        if earlier := self._looks.get(key):
            self._superseded.add(earlier)
            _cancel(earlier)
        task = self._looks[key] = asyncio.create_task(self._run(model, what))
        try:
            return await task
        except asyncio.CancelledError:
            if task in self._superseded:
                raise SupersededError(f"a newer look at {model} took its place") from None
            raise
        finally:
            self._superseded.discard(task)
            if self._looks.get(key) is task:
                del self._looks[key]

    async def close(self) -> None:
        """End what runs."""
        for task in self._looks.values():
            _cancel(task)
        if self._looks:
            await asyncio.wait(self._looks.values())

    async def _run(self, model: str, what: Look) -> dict[str, Any]:
        """Run a child when it is its turn; whatever happens, it is gone in the end."""
        child = _Child([*self._command, "--name", model, "--what", what.value], self._environment)
        answer = asyncio.create_task(self._threads.looks.run(child.answer, self._limit_s))
        try:
            return await asyncio.shield(answer)
        finally:
            child.end()
            if not child.has_begun:
                answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)


class _Child:
    """A child process: a thread waits for its answer, the event loop may end it."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self.has_begun = False
        self._command, self._environment = command, environment
        self._is_over = False
        self._process: subprocess.Popen[bytes] | None = None

    def answer(self, limit_s: float) -> dict[str, Any]:
        """Run the process, and return its answer, or raise its error."""
        self.has_begun = True
        if self._is_over:
            return {}
        nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
        with subprocess.Popen(self._command, env=self._environment, stdin=nothing, stdout=pipe) as process:
            self._process = process
            if self._is_over:  # `end` may not have seen it
                process.kill()
            try:
                output, _ = process.communicate(timeout=limit_s + _KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                raise TrainingError(f"it took longer than its limit of {limit_s:g} s") from None
            finally:
                process.kill()
        if self._is_over:
            return {}
        if not output:
            how = f"its process ended with exit code {process.returncode}"
            raise TrainingError(f"{how}; the server's log has the details")
        return _read(output)

    def end(self) -> None:
        """End the process, or see that it never begins; safe in any thread."""
        self._is_over = True
        if self._process:
            self._process.kill()


def _cancel(look: asyncio.Task[dict[str, Any]]) -> None:
    """Cancel a look once: a second time would cancel the wait for the end of its process."""
    if not look.cancelling():
        look.cancel()


def _read(output: bytes) -> dict[str, Any]:
    """Return a child's answer, or raise its error."""
    said = json.loads(output)
    if "answer" in said:
        answer: dict[str, Any] = said["answer"]
        return answer
    kind = getattr(errors, said["error"], TrainingError)
    raise (kind if issubclass(kind, RegraftError) else TrainingError)(said["text"])
