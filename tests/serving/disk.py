"""Watching a thread for whatever touches a disk or a database."""

import asyncio
import io
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from tests import REPOSITORY
from tests.grpc_loop import grpc_loop

_READING: Final = {"access", "listdir", "lstat", "open", "readlink", "scandir", "stat", "statvfs"}
_WRITING: Final = {"chmod", "fsync", "ftruncate", "link", "mkdir", "rename", "replace", "rmdir", "symlink", "unlink"}
_ROOT: Final = str(REPOSITORY)


@contextmanager
def disk_uses_of_the_loop() -> Iterator[list[str]]:
    """Yield the places where the event loop's thread uses a disk or database.

    An audit hook would not see `os.stat`, nor could it be taken away again.
    """
    found: list[str] = []

    def look(frame: FrameType, event: str, function: Any) -> None:  # noqa: ANN401 - whatever is called
        if event == "c_call" and _uses_the_disk(function):
            ours = [each for each in traceback.extract_stack(frame) if each.filename.startswith(_ROOT)]
            where = " < ".join(f"{Path(each.filename).name}:{each.lineno}" for each in reversed(ours[-3:]))
            found.append(f"{function.__name__} at {where or traceback.extract_stack(frame)[-1]}")

    async def watch(hook: Any) -> None:  # noqa: ANN401 - a profile function, or None
        sys.setprofile(hook)
        await asyncio.sleep(0)

    grpc_loop().run(watch(look))
    try:
        yield found
    finally:
        grpc_loop().run(watch(None))


def _uses_the_disk(function: Any) -> bool:  # noqa: ANN401 - as above
    module = getattr(function, "__module__", "") or type(getattr(function, "__self__", None)).__module__
    if module == "posix":
        return function.__name__ in _READING | _WRITING
    return function in (io.open, io.open_code) or module in ("_sqlite3", "sqlite3", "fcntl", "psycopg_binary")
