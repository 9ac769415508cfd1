"""The environment of a run of the tests: its own, whatever its user's is. Imported before anything that reads one."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_KEPT: Final = {
    "PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "USER",
    "CI",  # Hypothesis draws the same examples there
    "PERF_ANALYZER",
    "REGRAFT_TEST_DATA",
    "REGRAFT_FORBID_SKIPS",
}
_KEPT_FAMILIES: Final = ("PYTEST_", "PIP_", "NVIDIA_", "CUDA_", "COV_", "COVERAGE_")
_USERS: Final = "PYTEST_USERS_"
"""Precedes the names of what only a test that reaches a package index takes from the user: see `users`."""
_FOLDER: Final = "PYTEST_REGRAFT_FOLDER"
_OWNER: Final = "PYTEST_REGRAFT_OWNER"
"""Tell the processes of one run where its folder is, and which of them made it."""


def own(given: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment of a run that keeps everything in ``folder``.

    No proxy, setting of a program, locale or number of threads comes through from the one that is ``given``.
    """
    kept = {name: value for name, value in given.items() if name in _KEPT or name.startswith(_KEPT_FAMILIES)}
    for name, value in given.items():
        if name == "HOME" or (name.lower().endswith("_proxy") and not name.startswith(_USERS)):
            kept.setdefault(f"{_USERS}{name}", value)
    places = {"HOME": folder / "home", "TMPDIR": folder / "tmp", "REGRAFT_CACHE": folder / "cache"}
    fixed = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "ORT_DISABLE_TELEMETRY": "1"}
    return {**kept, **{name: str(path) for name, path in places.items()}, **fixed}


def users() -> dict[str, str]:
    """Return this environment with the proxies and the home of whoever runs the tests: how pip reaches its index."""
    theirs = {name.removeprefix(_USERS): value for name, value in os.environ.items() if name.startswith(_USERS)}
    return {**os.environ, **theirs}


def move_in() -> None:
    """Give this process, and all that it starts, an environment and a folder of the run's own."""
    os.umask(0o022)
    if _FOLDER not in os.environ:
        os.environ[_FOLDER] = tempfile.mkdtemp(prefix="regraft-tests-", dir=_short_folder())
        os.environ[_OWNER] = str(os.getpid())
    folder = Path(os.environ[_FOLDER])
    folder.chmod(0o755)  # PostgreSQL, which root runs as another user, has its folder in it
    environment = own(os.environ, folder)
    os.environ.clear()
    os.environ.update(environment)
    for name in ("HOME", "TMPDIR"):
        Path(environment[name]).mkdir(exist_ok=True)
    tempfile.tempdir = None  # it is remembered


def move_out(*, failed: bool) -> str:
    """Remove the run's folder, if this process made it; return what to say of it where tests ``failed``."""
    if os.environ.get(_OWNER) != str(os.getpid()):
        return ""
    folder = Path(os.environ[_FOLDER])
    if failed:
        return f"what the tests left is in {folder}"
    shutil.rmtree(folder, ignore_errors=True)
    return ""


def _short_folder() -> str:
    """Return where temporary files go; the path of a Unix socket may have 107 bytes, all in all."""
    folder = tempfile.gettempdir()
    return folder if len(folder) < 30 else "/tmp"  # noqa: S108 - mkdtemp makes the folder in it


move_in()
