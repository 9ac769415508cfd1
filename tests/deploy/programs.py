"""Programs that the tests drive: of the environment that runs them, of this repository, or of the machine."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests import REPOSITORY


def program(name: str, how: str) -> str:
    """Return where a program is; skips the test, and says ``how`` to get it, where it is not."""
    places = (Path(sys.executable).parent, REPOSITORY / f".{name}", os.environ["PATH"])
    found = shutil.which(name, path=os.pathsep.join(map(str, places)))
    if found is None:
        pytest.skip(f"{name} is missing: {how}")
    return found
