import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving.retraining.process_state import is_stopped
from tests.waiting import wait_until


def test_a_process_is_stopped_from_sigstop_until_sigcont() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as child:
        assert not is_stopped(child.pid)
        os.kill(child.pid, signal.SIGSTOP)
        wait_until(lambda: is_stopped(child.pid))
        os.kill(child.pid, signal.SIGCONT)
        wait_until(lambda: not is_stopped(child.pid))

    assert not is_stopped(child.pid), "it is gone"


@pytest.mark.parametrize("mount", ["", "unified"])
@pytest.mark.parametrize(
    ("events", "expected"), [("populated 1\nfrozen 1\n", True), ("populated 1\nfrozen 0\n", False)]
)
def test_a_process_is_stopped_while_its_control_group_is_frozen(
    tmp_path: Path, mount: str, events: str, expected: bool
) -> None:
    proc, group = tmp_path / "proc/7", tmp_path / "sys/fs/cgroup" / mount / "system.slice/regraft.service"
    proc.mkdir(parents=True)
    group.mkdir(parents=True)
    (proc / "stat").write_text("7 (a (strange) name) S 1 7 7 0")
    (proc / "cgroup").write_text("5:cpu:/elsewhere\n0::/system.slice/regraft.service\n")
    (group / "cgroup.events").write_text(events)

    assert is_stopped(7, tmp_path) is expected
