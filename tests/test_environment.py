"""The suite is as green on a machine that is used as on a bare one, and leaves nothing behind."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from tests import REPOSITORY
from tests.environment import own, users
from tests.tiny import tiny_backbone

SUBSET = (
    "tests/regraft/client/test_connection.py",
    "tests/regraft/test_label_rules.py",
    "tests/serving/test_settings.py",
    "tests/serving/rpc/security/test_guard.py",
    "tests/training/data/test_dataset.py",
    "tests/training/backbones/test_cache.py::test_a_damaged_entry_counts_as_none",
)
"""What settings, caches, proxies, names of files and ports would show in, within seconds."""


def hostile(home: Path) -> dict[str, str]:
    """Return an environment in which nearly every name means something to a library that we use."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii",
        "TZ": "Asia/Kathmandu",
        "COLUMNS": "20",
        "REGRAFT_STORE": str(home / "nowhere"),
        "REGRAFT_GRPC": "0.0.0.0:1",
        "REGRAFT_MAX_IN_FLIGHT": "1",
        "REGRAFT_CACHE": str(home / ".cache" / "regraft"),
        "REGRAFT_TARGET": "192.0.2.1:1",
        "OMP_NUM_THREADS": "nonsense",
        "GRPC_VERBOSITY": "debug",
        **dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://192.0.2.1:9"),
    }


def test_the_suite_passes_in_a_hostile_environment_and_leaves_nothing_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    backbones = home / ".cache" / "regraft" / "backbones"
    for folder in (backbones, home / "tmp"):
        folder.mkdir(parents=True)
    for size in ("96", "160"):  # two sizes of one backbone, as a user has them
        (backbones / f"{size}.onnx").write_bytes(tiny_backbone().SerializeToString())
        (backbones / f"{size}.json").write_text("{}")
    before = everything(home)

    with ExitStack() as stack:
        for port in (50051, 8002):  # as by a server of the user's
            with suppress(OSError):  # of another run of the tests
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SUBSET],
            cwd=REPOSITORY,
            env=hostile(home),
            umask=0o077,
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert everything(home) == before


def test_only_what_the_tests_ask_for_comes_through(tmp_path: Path) -> None:
    environment = own(hostile(tmp_path / "theirs"), tmp_path)

    assert {name for name in environment if not name.startswith("PYTEST_USERS_")} == {
        "PATH",
        "PYTHONPATH",
        "HOME",
        "TMPDIR",
        "LC_ALL",
        "TZ",
        "ORT_DISABLE_TELEMETRY",
        "REGRAFT_CACHE",
    }
    assert all(environment[name].startswith(str(tmp_path / "")) for name in ("HOME", "TMPDIR", "REGRAFT_CACHE"))
    assert own(environment, tmp_path) == environment  # as a process of pytest-xdist finds it


def test_pip_goes_the_way_that_the_user_goes() -> None:
    """Whose home this is cannot be told from within; that it is none of the run's can."""
    assert users()["HOME"] != os.environ["HOME"] == str(Path.home())


def everything(folder: Path) -> dict[str, bytes | None]:
    """Return every path in a folder, with the bytes of those that are files."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}
