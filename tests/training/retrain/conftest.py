"""Fixtures of the tests of whole training runs through the gate."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.training.shop import FIRST, Shop
from training.backbones.cache import ExportedBackbone


@pytest.fixture
def shop(tmp_path: Path, backbones_folder: Path, exported: Callable[[str], ExportedBackbone]) -> Iterator[Shop]:
    """A model store, photographs and labelled pictures, with networks at hand."""
    exported(FIRST)
    shop = Shop(tmp_path, backbones_folder)
    yield shop
    shop.examples.close()
