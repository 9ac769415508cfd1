"""How long work tells how far it is; the command line draws a bar from it, a retrain job writes it to its row."""

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all; from one thread, often."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """Report to nobody."""
