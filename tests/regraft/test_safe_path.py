import os
import subprocess
from pathlib import Path

import pytest

from regraft.safe_path import module_command


@pytest.mark.parametrize("on_path", [False, True])
def test_a_child_runs_our_module_wherever_somebody_elses_lies(tmp_path: Path, on_path: bool) -> None:
    """In the working directory it has even the name of a module of Python's."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("raise SystemExit('the training of somebody else')")
    if not on_path:
        (tmp_path / "signal.py").write_text("raise SystemExit('the signal of somebody else')")

    done = subprocess.run(
        [*module_command("training.retrain"), "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path) if on_path else ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.startswith("usage: python -m training.retrain"), done.stderr
