"""``python -m regraft.cli``, for torchrun and the demo."""

from regraft.cli.main import main

main()
