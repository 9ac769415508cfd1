"""Backbones that could be added to the store, listed by torch."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from pydantic import TypeAdapter

from regraft.errors import first_line
from regraft.safe_path import module_command
from serving.threads import Threads

log = logging.getLogger("regraft.models")

_LISTING: Final = "training.backbones"
_LONGEST_S: Final = 120.0
_PATIENCE_S: Final = 10.0
"""How long a caller waits; importing torch takes a few seconds the first time."""


@dataclass(frozen=True)
class AddableBackbone:
    """A network that ``regraft backbones add`` takes, as `training.backbones.listing` describes it."""

    name: str
    size_mb: float | None
    image_px: int
    embedding_size: int | None
    top1: float | None
    top1_source: str
    weights: str


_ENTRIES: Final = TypeAdapter(list[AddableBackbone])


class AddableBackbones:
    """The backbones that could be added, listed once in the server's life.

    Use from one event loop; close when done.
    """

    def __init__(self, threads: Threads, command: Sequence[str] = (), needs: str = "torch") -> None:
        """Ask nobody yet.

        Args:
            threads: to look for the package in.
            command: of the process that lists them; a test's own.
            needs: the package without which nothing can be added.
        """
        self._threads = threads
        self._command = command or module_command(_LISTING)
        self._needs = needs
        self._asking: asyncio.Task[Sequence[AddableBackbone]] | None = None

    async def list(self) -> Sequence[AddableBackbone]:
        """Return the backbones that could be added.

        There are none without torch, or while they are not known in time.
        """
        if not await self._threads.store.run(find_spec, self._needs):
            return ()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="list backbones that could be added")
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                return await asyncio.shield(self._asking)
        return ()

    def close(self) -> None:
        """End the process, if it still lists."""
        if self._asking:
            self._asking.cancel()

    async def _ask(self) -> Sequence[AddableBackbone]:
        try:
            return _ENTRIES.validate_json(await self._output())
        except (OSError, ValueError) as error:
            log.warning("what could be added to the store is not known: %s", first_line(error))
            self._asking = None
            return ()

    async def _output(self) -> bytes:
        child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_LONGEST_S):
                output, _ = await child.communicate()
        finally:
            with suppress(ProcessLookupError):  # it has ended
                child.kill()
        return output
