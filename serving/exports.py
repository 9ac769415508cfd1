"""Exports by short-lived child processes below the requests, one at a time.

A child is ``python -m training.export``. It works in a folder of its own, which is gone when the call ends, however it
ends: so nothing is left behind, and nothing has to be tidied up.
"""

import asyncio
import json
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from regraft.image.limits import DEFAULT_LIMITS, ImageLimits
from regraft.safe_path import module_command
from serving.child import Child, answer_of
from serving.threads import Pool

_PART_BYTES: Final = 2**20


@dataclass(frozen=True)
class ExportJob:
    """Arguments of one export.

    Attributes:
        version: ``NAME:VERSION``.
        to: a format.
        cpu: what int8 is for; empty: this machine.
        max_drop: percentage points of accuracy that may be lost; None for the usual.
    """

    version: str
    to: str
    cpu: str = ""
    max_drop: float | None = None

    def arguments(self) -> list[str]:
        """Return the child's flags."""
        stated = {"--version": self.version, "--to": self.to, "--cpu": self.cpu}
        stated |= {} if self.max_drop is None else {"--max-drop": str(self.max_drop)}
        return [f"{flag}={value}" for flag, value in stated.items()]


class Exports:
    """A runner of exports; use it from one event loop."""

    def __init__(
        self,
        child_arguments: list[str],
        pool: Pool,
        *,
        limits: ImageLimits = DEFAULT_LIMITS,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Make a runner.

        Args:
            child_arguments: flags that tell a child where the stores are, and how much of the machine it may have.
            pool: waits for the children; as many run at once as it has threads.
            limits: of pictures, which hold in the children too.
            environment: further variables of the children.
        """
        self._command = [*module_command("training.export"), *child_arguments]
        self._environment = {**os.environ, **limits.environment(), **environment}
        self._pool = pool

    async def run(self, job: ExportJob) -> AsyncGenerator[dict[str, Any] | bytes, None]:
        """Export, and yield progress, the answer, and the zip.

        The answer is ``{"answer": ..., "size_bytes": ...}``; the bytes of the zip follow in parts.

        Raises:
            OverloadedError: too many wait.
            TrainingError: it took too long or too much, or its process died.
            RegraftError: what the child says, such as that something is missing.
        """
        facts: asyncio.Queue[dict[str, Any] | bytes | None] = asyncio.Queue()
        loop, room = asyncio.get_running_loop(), threading.Semaphore(1)
        child = Child([*self._command, *job.arguments()], self._environment)

        def put(fact: dict[str, Any] | bytes | None) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(facts.put_nowait, fact)

        def put_part(part: bytes) -> bool:
            """Put the next part when the one before is sent.

            Returns:
                False once nobody wants it.
            """
            while not room.acquire(timeout=1.0):
                if child.is_over:
                    return False
            put(part)
            return not child.is_over

        async with child.at_work(self._pool, partial(_export, child, put, put_part)) as work:
            work.add_done_callback(lambda _: put(None))
            while (fact := await facts.get()) is not None:
                yield fact
                if isinstance(fact, bytes):
                    room.release()
            await work  # raises what ended it


def _export(child: Child, put: Callable[[dict[str, Any]], None], put_part: Callable[[bytes], bool]) -> None:
    """Run a child, and pass on its words and its zip."""
    folder = Path(tempfile.mkdtemp(prefix="regraft-export-"))
    out = folder / "export.zip"
    try:
        answer = _answer(child, out, put)
        if answer is None:
            return
        put({"answer": answer, "size_bytes": out.stat().st_size})
        with out.open("rb") as whole:
            while (part := whole.read(_PART_BYTES)) and put_part(part):
                pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answer(child: Child, out: Path, put: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
    """Return a child's answer, or None where nobody waits for it any more."""
    said: dict[str, Any] = {}
    with child.running(f"--out={out}") as process:
        assert process.stdout
        for line in process.stdout:
            said = json.loads(line)
            if "stage" in said:
                put(said)
    return None if child.is_over else answer_of(said, process)
