import subprocess
import sys
from typing import Final

import pytest

PROGRAM: Final = """
import atexit, sys, threading, time
from regraft.process_exit import end_process

atexit.register(print, "at the end")
for seconds in map(float, sys.argv[1:]):
    threading.Thread(target=time.sleep, args=(seconds,)).start()
print("stopped")
end_process(3)
"""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [((), "stopped\nat the end\n"), ((0.01, 0.1), "stopped\nat the end\n"), ((0.1, 3600), "stopped\n")],
)
def test_a_process_ends_in_order_if_its_threads_do_and_else_without_them(seconds: tuple[float, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, seconds)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (3, said, "")
