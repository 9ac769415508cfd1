"""A training run onto a name that has a champion asks the gate, by pictures that neither of the two learned from."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import ArtifactError
from regraft.label_rules import image_hash
from regraft.stores.models import MODEL_FILE, GateMode
from tests.tiny import picture
from tests.training.conftest import CRAYONS
from tests.training.shop import FIRST, MODEL, SECOND, Shop
from training.backbones.cache import ExportedBackbone

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_a_first_version_goes_live_without_a_gate_and_the_next_is_judged(shop: Shop) -> None:
    result = shop.train()

    first = shop.store.history(MODEL)[1]
    assert (first.event, first.version, first.why) == ("promote", 1, "trained from a folder")
    assert result.verdict is not None
    assert (result.version, result.promoted, result.verdict.blessed) == (2, True, True)
    assert result.verdict.holdout_images == int(shop.features(1).is_holdout.sum())
    assert result.card.parent_version == 1
    assert shop.store.history(MODEL)[-1].why.startswith("train: holdout accuracy ")


def test_a_run_that_would_drop_a_class_learned_over_grpc_is_refused_and_the_champion_stays(shop: Shop) -> None:
    shop.learn("grey", range(30))

    result = shop.train()

    assert result.verdict is not None
    assert (result.version, result.promoted, shop.store.champion(MODEL)) == (3, False, 2)
    assert result.verdict.reasons[0] == (
        "class 'grey' would be gone, of which version 2 knows 30 images: `regraft refresh` learns from the folder and "
        "from what was labelled since"
    )
    grey = next(entry for entry in result.verdict.classes if entry.label == "grey")
    held = shop.features(2).holdout()
    assert grey.holdout_images == sum(held.labels[index] == "grey" for index in held.label_index) > 0
    assert grey.challenger_recall == 0
    assert shop.store.history(MODEL)[-1].why.startswith("refused: class 'grey' would be gone")


def test_with_the_gate_off_it_goes_live_and_the_history_says_what_the_gate_thought(shop: Shop) -> None:
    shop.learn("grey", range(30))

    assert shop.train(gate=GateMode.OFF).promoted

    assert shop.store.champion(MODEL) == 3
    assert "the gate was off, and would have refused it: class 'grey'" in shop.store.history(MODEL)[-1].why


def test_with_the_gate_on_manual_it_waits(shop: Shop) -> None:
    result = shop.train(gate=GateMode.MANUAL)

    assert result.verdict is not None
    assert (result.verdict.blessed, result.promoted, shop.store.champion(MODEL)) == (True, False, 1)


def test_pictures_that_either_learned_from_judge_nobody(shop: Shop, tmp_path: Path) -> None:
    known = shop.features(1)
    for side, held in (("train", True), ("val", False)):  # what was held out is learned from now, and vice versa
        for sha256, index, is_held in zip(known.sha256, known.label_index, known.is_holdout, strict=True):
            if bool(is_held) == held:
                folder = tmp_path / "swapped" / side / known.labels[index]
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(file_of(shop, sha256), folder / f"{sha256}.png")

    result = shop.train(tmp_path / "swapped")

    assert result.verdict is not None
    assert (result.verdict.holdout_images, result.promoted) == (0, False)
    aside = int((~known.is_holdout).sum())
    remark = f"{aside} holdout images of this run judge nobody, since version 1 was fitted on them"
    assert any(told.startswith(remark) for told in result.verdict.cautions)


def file_of(shop: Shop, sha256: str) -> Path:
    return next(file for file in shop.data.rglob("*.png") if image_hash(file.read_bytes()) == sha256)


def test_the_champions_holdout_from_elsewhere_judges_too_also_on_another_backbone(
    shop: Shop, exported: Callable[[str], ExportedBackbone], tmp_path: Path
) -> None:
    exported(SECOND)
    sent = shop.learn("red", range(100, 130))
    held = int(shop.features(2).is_holdout.sum())
    assert held > int(shop.features(1).is_holdout.sum())

    seen = [shop.train(backbone=backbone, gate=GateMode.MANUAL).verdict for backbone in (FIRST, SECOND)]
    for sha256 in sent:
        shop.examples.image_file(sha256).unlink()
    # The cache's own file stays: the tests that run beside this one embed into it.
    shop.cache = shutil.copytree(shop.cache, tmp_path / "cache", ignore=shutil.ignore_patterns("embeddings.sqlite*"))
    third = shop.train(backbone=SECOND, gate=GateMode.MANUAL).verdict

    first, second = (verdict.holdout_images for verdict in seen if verdict)
    assert first == held
    assert held - 3 <= second <= held  # another network sees other near-duplicates, so its split may differ a little
    assert third is not None
    gone = second - third.holdout_images
    assert gone > 0
    assert any(told.startswith(f"{gone} holdout images of version 2 judge nobody") for told in third.cautions)


def test_labels_keep_the_order_of_the_champion_and_new_ones_come_behind(shop: Shop) -> None:
    (shop.data / "amber").mkdir()
    for number in range(20):
        (shop.data / "amber" / f"{number}.png").write_bytes(picture("grey", number))

    assert shop.train(gate=GateMode.OFF).card.labels == (*CRAYONS, "amber")


def test_a_damaged_champion_is_named_and_the_gate_off_trains_all_the_same(shop: Shop) -> None:
    (shop.store.folder(MODEL, 1) / MODEL_FILE).write_bytes(b"cut off")

    with pytest.raises(ArtifactError, match="--gate off trains without a look at the champion"):
        shop.train()
    assert shop.store.versions(MODEL) == [1]

    assert shop.train(gate=GateMode.OFF).promoted


def test_the_command_says_what_the_gate_refused_and_exits_with_one(shop: Shop) -> None:
    shop.learn("grey", range(30))
    words = ["train", str(shop.data), "--name", MODEL, "--store", str(shop.store.root), "--no-tensorboard"]

    done = CliRunner().invoke(
        app, [*words, "--backbone", FIRST, "--weights", "none"], env={"REGRAFT_CACHE": str(shop.cache)}
    )

    assert done.exit_code == 1, done.output
    said = " ".join(done.output.split())
    assert "the gate objects: class 'grey' would be gone" in said
    assert "version 3 is published, not promoted: regraft models promote 3 --name crayons" in said
