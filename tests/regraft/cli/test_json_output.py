import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
from regraft.cli.json_output import print_json
print_json({"label": "Möwe"})
"""


@pytest.mark.parametrize(("encoding", "said"), [("ascii", "M\\u00f6we"), ("latin-1", "M\\u00f6we"), ("utf-8", "Möwe")])
def test_json_is_json_whatever_the_terminal_can_write(encoding: str, said: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    printed = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True).stdout

    assert said in printed.decode()
    assert json.loads(printed) == {"label": "Möwe"}
