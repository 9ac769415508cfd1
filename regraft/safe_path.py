"""Safe import paths for Regraft's processes.

A user's repository often has a ``training`` of its own, in the working directory or on PYTHONPATH. As a program this
file runs a module, as ``python -m`` does: ``python -P safe_path.py training.retrain ARGUMENTS``.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("regraft", "serving", "training")


def import_own_packages() -> None:
    """Import Regraft's packages from where this file lies."""
    for name in _PACKAGES:
        if name not in sys.modules:
            spec = spec_from_file_location(name, Path(__file__).parents[1] / name / "__init__.py")
            assert spec is not None
            assert spec.loader is not None
            package = sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(package)


def module_command(module: str) -> list[str]:
    """Return the command of a module in a child, safe from its folder."""
    return [sys.executable, "-P", __file__, module]


if __name__ == "__main__":
    import runpy

    import_own_packages()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
