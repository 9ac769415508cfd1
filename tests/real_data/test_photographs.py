"""What a user gets on real photographs; the figures that the README promises."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.versions import CHANGES, compare, write_versions
from regraft.image.decode import decode_crop
from regraft.model import artifact
from regraft.model.artifact import EMBEDDING, IMAGE, NOVELTY, PROBABILITIES
from regraft.model.session import open_session
from regraft.stores.models import ModelStore
from tests.arrows import arrows
from tests.real_data.conftest import Trainer
from training.backbones.build import build_backbone
from training.backbones.cache import load_backbone
from training.data.dataset import scan
from training.data.samples import samples_of
from training.export.export import export_version
from training.settings import TrainSettings
from training.strategies.finetuning.loop import predict
from training.train import TrainResult, train

# Columns: the set, the least accuracy on its holdout, training and holdout images, classes.
SETS = {
    "ants and bees": (
        "hymenoptera",
        0.93,
        244,
        153,
        2,
    ),  # a bee that the holdout has too is not trained on: 0.941 -> 0.935
    "flowers": ("flower_photos", 0.91, 1500, 448, 5),
    "steel defects, far from ImageNet and split by hash": ("neu_surface_defects/all", 0.97, 720, 180, 6),
    "fruit, few and unbalanced": ("fruits4", 0.90, 240, 60, 4),
}


HEAVY = pytest.mark.heavy
"""Half a minute of a CPU, and another network or set goes the same way in every run; `make bench` plays these."""


def accuracy(result: TrainResult) -> float:
    assert result.card.metrics is not None
    return result.card.metrics.accuracy


@pytest.mark.parametrize(
    ("folder", "least", "train", "holdout", "classes"),
    [pytest.param(*values, id=name, marks=HEAVY if name == "flowers" else ()) for name, values in SETS.items()],
)
def test_the_default_backbone_is_good_on(
    trainer: Trainer, folder: str, least: float, train: int, holdout: int, classes: int
) -> None:
    result = trainer(folder, "photographs")

    assert accuracy(result) >= least
    assert result.card.metrics is not None
    assert (result.card.train_images + len(result.left_out), result.card.metrics.images) == (train, holdout)
    assert len(result.card.labels) == classes
    assert all(
        entry.reason.startswith("belongs with ") for entry in result.left_out
    )  # near-duplicates across the split
    assert len(result.left_out) <= train / 50
    assert artifact.read(result.path).card == result.card


@pytest.mark.parametrize("change", ["light", pytest.param("usual", marks=HEAVY)])
def test_augmented_versions_of_flowers_do_not_flatter_the_headline(
    photographs: Path, photograph_cache: Path, tmp_path: Path, change: str
) -> None:
    flowers, data, fresh = photographs / "flower_photos" / "val", tmp_path / "data", tmp_path / "fresh"
    write_versions(flowers, data, fresh, pictures=30, versions=3, change=CHANGES[change])

    backbone = load_backbone("efficientnet_lite0", "default", 0, photograph_cache)
    apart, together = compare(data, fresh, backbone, photograph_cache)

    assert together.is_honest
    assert apart.holdout > apart.fresh + 0.05
    assert together.kept > 0.85
    assert together.c < apart.c


# Columns: the network, its file of weights, the least accuracy on ants and bees.
FILES = [("mobilenet_v2", "mobilenet_v2-imagenet.pth", 0.93), ("squeezenet1_1", "squeezenet1_1-imagenet.pth", 0.88)]


@pytest.mark.parametrize(("backbone", "file", "least"), FILES, ids=[backbone for backbone, _, _ in FILES])
def test_weights_from_a_file_are_good_on_ants_and_bees(
    trainer: Trainer, weights_folder: Path, backbone: str, file: str, least: float
) -> None:
    result = trainer("hymenoptera", "insects", backbone, str(weights_folder / file))

    assert accuracy(result) >= least
    assert result.card.backbone.weights.startswith(f"file {file}, sha256 ")


def test_a_mirrored_view_of_each_picture_helps_on_ants_and_bees(trainer: Trainer) -> None:
    without = accuracy(trainer("hymenoptera", "plain"))
    found = accuracy(trainer("hymenoptera", "viewed", views=1))

    assert found > without
    assert found >= 0.94  # a picture that lies in train/ and in val/ is not trained on: one of 153 answers less


@HEAVY
def test_views_of_arrows_cost_nothing_since_mirroring_is_left_out(tmp_path: Path, photograph_cache: Path) -> None:
    arrows(tmp_path / "signs" / "train", 60)
    arrows(tmp_path / "signs" / "val", 100, first=1000)

    def trained(**settings: Any) -> TrainResult:  # noqa: ANN401 - fields of the settings
        return train(
            TrainSettings(tmp_path / "signs", store=tmp_path / "models", image_px=96, **settings),
            cache=photograph_cache,
        )

    probe, views, mirrored = trained(), trained(views=2), trained(views=2, mirror=True)

    assert accuracy(probe) > 0.9
    assert accuracy(views) > accuracy(probe) - 0.05
    assert accuracy(mirrored) < 0.7
    assert any("answered as another class" in note and "--mirror" in note for note in views.findings.notes)
    assert (views.card.settings["mirror"], mirrored.card.settings["mirror"]) == (False, True)


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", pytest.param("mobilenet_v2", marks=HEAVY), "squeezenet1_1"])
def test_invariant_8_the_file_answers_as_torch_does_on_every_validation_image(
    trainer: Trainer, weights_folder: Path, photographs: Path, backbone: str
) -> None:
    file = weights_folder / f"{backbone}-imagenet.pth"
    weights = str(file) if file.exists() else "default"
    result = trainer("hymenoptera", "insects", backbone, weights)
    served = artifact.read(result.path)
    asked = samples_of(scan(photographs / "hymenoptera"), holdout=True)
    session = open_session(result.path, provider="cpu", threads=2).session

    trained = predict(build_backbone(backbone, weights, 0), served.head.weight, served.head.bias, asked)
    crops = np.stack([decode_crop(sample.path.read_bytes(), served.card.image) for sample in asked])
    embedding, probabilities = session.run([EMBEDDING, PROBABILITIES], {IMAGE: crops})

    assert len(asked) == 153
    assert np.abs(embedding @ served.head.weight.T + served.head.bias - trained).max() <= 1e-3
    assert (probabilities.argmax(axis=1) == trained.argmax(axis=1)).all()


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", pytest.param("mobilenet_v2", marks=HEAVY)])
def test_int8_loses_at_most_a_point_on_ants_and_bees(trainer: Trainer, weights_folder: Path, backbone: str) -> None:
    file = weights_folder / f"{backbone}-imagenet.pth"
    weights = str(file) if file.exists() else "default"

    fp32, int8 = (trainer("hymenoptera", "insects", backbone, weights, precision=p) for p in ("fp32", "int8"))

    assert int8.card.backbone.precision == "int8"
    assert int8.path.stat().st_size < 0.35 * fp32.path.stat().st_size
    assert accuracy(int8) >= accuracy(fp32) - 0.01


@pytest.mark.parametrize(("to", "share_of_size"), [("int8", 0.35), ("mobile", 1.01)])
def test_an_export_answers_as_the_server_does_on_ants_and_bees(
    trainer: Trainer, photographs: Path, tmp_path: Path, to: str, share_of_size: float
) -> None:
    trainer("hymenoptera", "insects")

    export = export_version(
        ModelStore(tmp_path / "models"),
        "insects:1",
        to,
        tmp_path / to,
        data=photographs / "hymenoptera",
        examples=str(tmp_path / "none"),
    )

    assert export.proof.images == 153
    assert export.proof.agreement >= 0.99
    assert export.proof.points_lost <= 1.0
    assert export.to_dict()["share_of_size"] <= share_of_size
    assert export.layers_in_float == ()


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
