import subprocess
import sys

import pytest

WITHOUT_FCNTL = "import sys\nsys.modules['fcntl'] = None\n"
"""What Python finds on Windows, or rather does not."""


def test_elsewhere_than_on_linux_one_line_says_so() -> None:
    program = f"{WITHOUT_FCNTL}sys.platform = 'win32'\nfrom regraft.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: Regraft is for Linux, and this is win32: use a container, or WSL")


def test_the_client_alone_works_there() -> None:
    program = f"{WITHOUT_FCNTL}from regraft.client.client import Client\nClient('127.0.0.1:1').close()"

    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("command", [["-m", "regraft"], ["-c", "from regraft.__main__ import main; main()"]])
def test_the_front_door_opens_here(command: list[str]) -> None:
    done = subprocess.run([sys.executable, *command, "--help"], capture_output=True, text=True, check=True)

    assert "Transfer learning, all the way to production" in done.stdout
