"""A version's recipe as the defaults of another run."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import PreconditionError
from regraft.model import artifact
from tests.tiny import tiny_backbone, tiny_card, tiny_head
from tests.training.conftest import crayons
from training.backbones.cache import ExportedBackbone
from training.like import settings_like
from training.settings import TrainSettings
from training.strategies.finetuning.recipe import recipe_for

LABELS = ("blue", "red")
BACKBONE = tiny_backbone()
NETWORK = "timm/test_resnet"
TUNED = asdict(recipe_for("finetune", 40, {"optimizer": "sgd", "epochs": 7, "freeze": "layer1"}))
RECIPE = {
    **{("lr" if name == "backbone_lr" else name): value for name, value in TUNED.items()},
    "strategy": "finetune",
    "published": "probe",
    "publish": "better",
    "backbone": "tiny",
    "init": "head",
    "precision": "fp32",
    "balance": "on",
    "views": 0,
    "seed": 4,
    "image_px": 96,
    "own_image_px": False,
}
CARD = tiny_card(BACKBONE, tiny_head(LABELS), LABELS).model_copy(update={"recipe": RECIPE})
CARD = CARD.model_copy(update={"backbone": CARD.backbone.model_copy(update={"weights": "random, seed 4"})})
DATA = Path("photos")


def test_a_recipe_gives_every_number_that_was_not_typed() -> None:
    found = settings_like(CARD, TrainSettings(DATA), {"data"})

    assert (found.strategy, found.backbone, found.weights, found.seed) == ("finetune", "tiny", "none", 4)
    assert (found.balance, found.image_px, found.mirror) == ("on", 96, True)
    assert asdict(recipe_for("finetune", 5000, found.changes)) == {**TUNED, "mirror": True}


def test_what_was_typed_goes_before_the_recipe_and_takes_along_what_follows_from_it() -> None:
    given = TrainSettings(DATA, strategy="finetune", seed=9, changes={"backbone_lr": 1e-3})

    found = settings_like(CARD, given, {"data", "strategy", "seed", "lr"})

    assert (found.seed, found.changes["backbone_lr"]) == (9, 1e-3)
    assert recipe_for("finetune", 40, found.changes).head_lr == pytest.approx(1e-2)
    assert found.changes["epochs"] == 7


def test_another_strategy_takes_what_is_not_of_fine_tuning_alone() -> None:
    found = settings_like(CARD, TrainSettings(DATA), {"data", "strategy"})

    assert (found.strategy, found.seed, found.balance, dict(found.changes)) == ("probe", 4, "on", {})


def test_a_version_of_before_says_that_it_has_no_recipe() -> None:
    with pytest.raises(PreconditionError, match="--like: colours does not say how it was trained"):
        settings_like(CARD.model_copy(update={"recipe": {}}), TrainSettings(DATA), {"data"})


@pytest.mark.usefixtures("one_torch_thread")
def test_a_version_like_another_of_the_same_data_has_the_same_head_bytes(
    tmp_path: Path,
    exported: Callable[[str], ExportedBackbone],
    backbones_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported(NETWORK)
    monkeypatch.setenv("REGRAFT_CACHE", str(backbones_folder))
    data, store = crayons(tmp_path / "crayons", 10), tmp_path / "models"
    command = ["train", str(data), "--store", str(store), "--no-tensorboard"]
    typed = ["--backbone", NETWORK, "--weights", "none", "--balance", "on", "--views", "1", "--target-error", "5%"]

    first = CliRunner().invoke(app, [*command, "--name", "first", *typed])
    again = CliRunner().invoke(app, [*command, "--name", "again", "--like", "first:1"])

    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    one, other = (artifact.read(store / name / "1" / "model.onnx").card for name in ("first", "again"))
    assert (one.head_digest, one.backbone.digest) == (other.head_digest, other.backbone.digest)
    assert one.recipe == other.recipe
    assert f"like first:1: probe of {NETWORK}" in again.output


@pytest.mark.usefixtures("one_torch_thread", "resnet_at_hand")
def test_a_second_set_is_no_part_of_a_recipe_and_it_says_so(tmp_path: Path) -> None:
    data, more = crayons(tmp_path / "crayons", 10), crayons(tmp_path / "more", 14)
    command = ["train", str(data), "--store", str(tmp_path / "models"), "--no-tensorboard"]
    typed = ["--backbone", NETWORK, "--weights", "none", "--extra", str(more)]

    first = CliRunner().invoke(app, [*command, "--name", "first", *typed])
    again = CliRunner().invoke(app, [*command, "--name", "again", "--like", "first"])

    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    told = " ".join(again.output.split())
    assert "like first:1: it learned from --extra more too; this one does not" in told
