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
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from regraft.errors import SupersededError, TrainingError
from regraft.image.limits import DEFAULT_LIMITS, ImageLimits
from regraft.safe_path import module_command
from serving.child import Child, answer_of
from serving.threads import Threads

LIMIT_S: Final = 120.0
_KILL_AFTER_S: Final = 5.0
"""Beyond the child's own limit, which it cannot keep while it is stopped."""


class Look(StrEnum):
    """The subject of a look, its child's ``--what``."""

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
        """Look at a model's next head.

        An earlier look of this kind ends.

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
        """Run a child when it is its turn."""
        child = Child([*self._command, "--name", model, "--what", what.value], self._environment)
        async with child.at_work(self._threads.looks, partial(_answer, child, self._limit_s)) as answer:
            return await asyncio.shield(answer)


def _answer(child: Child, limit_s: float) -> dict[str, Any]:
    """Run a child, and return its answer, or raise its error."""
    with child.running() as process:
        try:
            output, _ = process.communicate(timeout=limit_s + _KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            raise TrainingError(f"it took longer than its limit of {limit_s:g} s") from None
    return {} if child.is_over else answer_of(json.loads(output or b"{}"), process)


def _cancel(look: asyncio.Task[dict[str, Any]]) -> None:
    """Cancel a look, once.

    A second time would cancel the wait for the end of its process.
    """
    if not look.cancelling():
        look.cancel()
