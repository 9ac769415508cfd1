"""``python -m regraft.cli``, for the demo."""

from regraft.safe_path import import_own_packages

import_own_packages()

from regraft.cli.main import main  # noqa: E402 - it imports them

main()
