"""Tests, folder by folder as the source; what several of them need lies beside them."""

from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parent.parent
