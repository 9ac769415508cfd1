"""Where the weights are, and one cache of backbones and embeddings for the whole run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regraft.files import locked
from training.settings import TrainSettings
from training.train import TrainResult, train

Trainer = Callable[..., TrainResult]


@pytest.fixture(scope="session")
def weights_folder(photographs: Path) -> Path:
    """The folder of ImageNet weights, beside the folder of photographs."""
    folder = photographs.parent / "weights"
    if not folder.is_dir():
        pytest.skip(f"no weights in {folder}: they belong beside the folder that REGRAFT_TEST_DATA names")
    return folder


@pytest.fixture(scope="session")
def photograph_cache(run_folder: Path) -> Path:
    """A cache of the photographs' own."""
    folder = run_folder / "photograph-cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def trainer(photographs: Path, photograph_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """A function that trains on one of the sets."""
    monkeypatch.setenv("REGRAFT_CACHE", str(photograph_cache))

    def run(
        folder: str,
        name: str,
        backbone: str = "efficientnet_lite0",
        weights: str = "default",
        **flags: Any,  # noqa: ANN401 - fields of the settings
    ) -> TrainResult:
        settings = TrainSettings(photographs / folder, name, tmp_path / "models", backbone, weights, **flags)
        with locked(photograph_cache / f"{backbone}.lock"):  # or two processes would export the backbone at once
            return train(settings)

    return run
