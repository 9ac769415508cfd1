import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regraft import artifact
from regraft.errors import DatasetError, PreconditionError
from regraft.examples import ExamplesStore, image_hash, is_holdout, open_examples
from regraft.interrupted import job_lock
from regraft.store import FEATURES_FILE, MODEL_FILE, GateMode, ModelStore
from tests.tiny import picture
from tests.training.conftest import crayons
from training.features import Features, load_features
from training.pretrained import ExportedBackbone
from training.refresh import Refreshed, refresh
from training.settings import TrainSettings
from training.train import train

pytestmark = pytest.mark.usefixtures("one_torch_thread")

FIRST, SECOND = "timm/test_resnet", "timm/test_vit"
MODEL = "crayons"


class Shop:
    """A model that was trained on a folder, and examples."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.data, self.cache = crayons(root / MODEL, 20), cache
        self.store = ModelStore(root / "models")
        train(TrainSettings(self.data, MODEL, self.store.root, FIRST, "none", tensorboard=False), cache=cache)
        self.examples: ExamplesStore = open_examples(self.store.root)

    def refresh(self, backbone: str = FIRST, gate: GateMode = GateMode.AUTO) -> Refreshed:
        settings = TrainSettings(self.data, MODEL, self.store.root, backbone, "none", tensorboard=False)
        return refresh(settings, self.examples, cache=self.cache, gate=gate)

    def add(self, label: str, numbers: range, called: str = "") -> list[bytes]:
        pictures = [picture(label, number) for number in numbers]
        for data in pictures:
            self.examples.add(MODEL, data, called or label)
        return pictures

    def features(self, version: int) -> Features:
        return load_features(self.store.folder(MODEL, version) / FEATURES_FILE)


@pytest.fixture
def shop(tmp_path: Path, backbones_folder: Path, exported: Callable[[str], ExportedBackbone]) -> Iterator[Shop]:
    exported(FIRST)
    shop = Shop(tmp_path, backbones_folder)
    yield shop
    shop.examples.close()


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


def test_what_was_removed_stays_away_though_it_is_in_the_folder(shop: Shop) -> None:
    gone = (shop.data / "red" / "3.png").read_bytes()
    shop.examples.add(MODEL, gone, "red")
    shop.examples.remove(MODEL, image_hash(gone))

    shop.refresh()

    assert image_hash(gone) not in shop.features(2).sha256


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
