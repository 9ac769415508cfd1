"""What a user gets on real photographs; the figures that the README promises."""

from pathlib import Path

import numpy as np
import pytest

from regraft import artifact
from regraft.artifact import IMAGE, NOVELTY
from regraft.image import decode_crop
from regraft.runtime import open_session
from tests.real_data.conftest import Trainer
from training.train import TrainResult

# Columns: the set, the least accuracy on its holdout, training and holdout images, classes.
SETS = {
    "ants and bees": ("hymenoptera", 0.94, 244, 153, 2),
    "flowers": ("flower_photos", 0.91, 1500, 448, 5),
    "steel defects, far from ImageNet and split by hash": ("neu_surface_defects/all", 0.97, 720, 180, 6),
    "fruit, few and unbalanced": ("fruits4", 0.90, 240, 60, 4),
}


def accuracy(result: TrainResult) -> float:
    assert result.card.metrics is not None
    return result.card.metrics.accuracy


@pytest.mark.parametrize(("folder", "least", "train", "holdout", "classes"), SETS.values(), ids=SETS)
def test_the_default_backbone_is_good_on(
    trainer: Trainer, folder: str, least: float, train: int, holdout: int, classes: int
) -> None:
    result = trainer(folder, "photographs")

    assert accuracy(result) >= least
    assert result.card.metrics is not None
    assert (result.card.train_images, result.card.metrics.images) == (train, holdout)
    assert len(result.card.labels) == classes
    assert result.left_out == ()
    assert artifact.read(result.path).card == result.card


# Columns: the network, its file of weights, the least accuracy on ants and bees.
FILES = [("mobilenet_v2", "mobilenet_v2-imagenet.pth", 0.93), ("squeezenet1_1", "squeezenet1_1-imagenet.pth", 0.88)]


@pytest.mark.parametrize(("backbone", "file", "least"), FILES, ids=[backbone for backbone, _, _ in FILES])
def test_weights_from_a_file_are_good_on_ants_and_bees(
    trainer: Trainer, weights_folder: Path, backbone: str, file: str, least: float
) -> None:
    result = trainer("hymenoptera", "insects", backbone, str(weights_folder / file))

    assert accuracy(result) >= least
    assert result.card.backbone.weights.startswith(f"file {file}, sha256 ")


def test_invariant_7_a_second_run_on_the_same_photographs_gives_the_same_head_bytes(trainer: Trainer) -> None:
    first, second = trainer("hymenoptera", "insects"), trainer("hymenoptera", "insects")

    assert (first.version, second.version) == (1, 2)
    assert first.card.head_digest == second.card.head_digest
    assert first.card.metrics == second.card.metrics


def test_photographs_of_something_else_are_mostly_new_to_a_model_of_ants_and_bees(
    trainer: Trainer, photographs: Path
) -> None:
    result = trainer("hymenoptera", "insects")
    session = open_session(result.path, provider="cpu", threads=2).session

    def share_new(folder: str, every: int) -> float:
        files = sorted((photographs / folder).rglob("*.jpg"))[::every]
        crops = np.stack([decode_crop(path.read_bytes(), result.card.image) for path in files])
        (novelty,) = session.run([NOVELTY], {IMAGE: crops})
        return float((novelty > result.card.novelty_threshold).mean())

    assert share_new("hymenoptera/val", 3) < 0.2
    assert share_new("neu_surface_defects/all", 20) > 0.9
