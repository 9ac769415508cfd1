"""Entry point of ``regraft`` and ``python -m regraft``."""

import sys
from importlib.util import find_spec

from regraft.safe_path import import_own_packages


def main() -> None:
    """Run the command line, or refuse a system without it."""
    if find_spec("fcntl") is None:  # as on Windows
        sys.exit(
            f"error: Regraft is for Linux, and this is {sys.platform}: use a container, or WSL on Windows "
            "(regraft.client alone works here)"
        )
    import_own_packages()
    from regraft.cli.main import main as run  # noqa: PLC0415 - it needs what is missing elsewhere

    run()


if __name__ == "__main__":
    main()
