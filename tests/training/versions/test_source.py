"""A version is where another begins: ``--backbone store:NAME[:VERSION]``."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from regraft.cli.client.models import show_card
from regraft.errors import ArtifactError, InvalidRequestError, NotFoundError, PreconditionError
from regraft.files import locked
from regraft.image.decode import decode_crop
from regraft.label_rules import image_hash
from regraft.model import artifact
from regraft.model.card import BackboneCard, ModelCard
from regraft.stores.models import (
    FEATURES_FILE,
    MODEL_FILE,
    REPORT_FILE,
    REPORT_JSON_FILE,
    STATE_FILE,
    GateMode,
    ModelStore,
)
from regraft.v1 import models_pb2
from tests.training.conftest import CRAYONS, block, crayons, in_a_child
from tests.training.networks import tiny_torch_backbone
from training.backbones.onnx_export import Normalised
from training.backbones.trained_state import MOST_BYTES, keep_state, restore
from training.compare.settings import CompareSettings
from training.head.features import load_features
from training.quantisation.version import quantise_version
from training.retrain.refresh import network_of
from training.settings import TrainSettings
from training.strategies.context import SilentListener
from training.train import TrainResult, train
from training.versions.source import Source, settle_source

pytestmark = pytest.mark.usefixtures("one_torch_thread", "resnet_at_hand")

BACKBONE = "timm/test_resnet"
QUICK = {"epochs": 1, "batch": 8, "backbone_lr": 1e-3, "head_lr": 1e-2}
STILL = {**QUICK, "backbone_lr": 1e-7}
"""A fine-tuning that leaves the backbone nearly what it began with."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of this run."""
    folder = tmp_path_factory.getbasetemp().parent / "sources"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def data(shared: Path) -> Path:
    with locked(shared / "data.lock", patience_s=300):
        return folder if (folder := shared / "crayons").exists() else crayons(folder, 12)


@pytest.fixture(scope="module")
def first(shared: Path, data: Path) -> ModelStore:
    """A store with ``plain``, a probe; ``tuned``, a fine-tuned network; and ``further``, which went on from there."""
    store, finished = ModelStore(shared / "models"), shared / "finished"
    with locked(shared / "models.lock", patience_s=300):
        if not finished.exists():
            run(store, data, "plain", backbone=BACKBONE, weights="none")
            run(store, data, "tuned", "finetune", backbone=BACKBONE, weights="none")
            chained = {"backbone": "store:tuned", "init": "source", "changes": STILL, "keep_state": False}
            run(store, data, "further", "finetune", **chained)
            finished.touch()
    return store


@pytest.fixture
def store(first: ModelStore, tmp_path: Path) -> ModelStore:
    """A copy of the store, to do with as a test likes."""
    shutil.copytree(first.root, tmp_path / "models")
    return ModelStore(tmp_path / "models")


def run(store: ModelStore, data: Path, name: str, strategy: str = "probe", **others: object) -> TrainResult:
    return train(settings(store, data, name, strategy, **others), gate=GateMode.OFF)


def settings(store: ModelStore, data: Path, name: str, strategy: str = "probe", **others: object) -> TrainSettings:
    tuned = {"changes": QUICK, "publish": "finetuned"} if strategy == "finetune" else {}
    given = {"tensorboard": False, **tuned, **others}
    return TrainSettings(data, name, store.root, strategy=strategy, **given)  # type: ignore[arg-type]  # checked there


def card(store: ModelStore, name: str, version: int = 1) -> ModelCard:
    return artifact.read(store.folder(name, version) / MODEL_FILE).card


def test_a_probe_takes_the_backbone_out_of_the_versions_file(store: ModelStore, data: Path) -> None:
    made = run(store, data, "next", backbone="store:tuned:1").card.backbone
    source = card(store, "tuned").backbone

    assert (made.digest, made.name, made.weights) == (source.digest, source.name, source.weights)
    assert [each.model_dump() for each in made.sources] == [{"name": "tuned", "version": 1, "digest": source.digest}]


def test_without_a_version_the_champion_is_meant_and_named(store: ModelStore, data: Path) -> None:
    run(store, data, "tuned", backbone="store:plain")  # version 2, which is the champion

    assert settle_source(settings(store, data, "next", backbone="store:tuned")).backbone == "store:tuned:2"


def test_a_probe_of_a_version_needs_no_torch(store: ModelStore, data: Path, tmp_path: Path) -> None:
    away = block(tmp_path / "away", ["torch", "torchvision", "timm"], "raise ImportError('not here')")
    command = ["train", str(data), "--name", "next", "--store", str(store.root), "--backbone", "store:tuned"]

    done = in_a_child(["-m", "regraft", *command], away)

    assert done.returncode == 0, done.stderr
    assert card(store, "next").backbone.sources[0].name == "tuned"


class Embeds(SilentListener):
    """Hears how many pictures had to be embedded."""

    def __init__(self) -> None:
        self.pictures = 0

    def progress(self, stage: str, done: int, _total: int) -> None:
        self.pictures = max(self.pictures, done) if stage == "embed" else self.pictures


def test_pictures_that_the_source_was_trained_on_are_not_embedded_again(store: ModelStore, data: Path) -> None:
    listener = Embeds()

    train(settings(store, data, "next", backbone="store:tuned"), listener)

    assert listener.pictures == 0


def test_fine_tuning_keeps_its_weights_and_the_card_names_them(store: ModelStore) -> None:
    kept, file = card(store, "tuned").backbone.state, store.folder("tuned", 1) / STATE_FILE

    assert kept is not None
    assert kept.size_bytes == file.stat().st_size
    assert kept.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert "kept beside the version" in (store.folder("tuned", 1) / REPORT_FILE).read_text()
    assert card(store, "plain").backbone.state is None
    assert not (store.folder("plain", 1) / STATE_FILE).exists()


def test_the_kept_weights_are_the_network_that_is_served(store: ModelStore, data: Path) -> None:
    source = Source(store.root, "tuned", 1)
    features = load_features(store.folder("tuned", 1) / FEATURES_FILE)
    picture = next((data / "red").iterdir()).read_bytes()
    crop = decode_crop(picture, source.card.image)

    with torch.inference_mode():
        embedding = Normalised(restore(source.state(), source.artifact))(torch.from_numpy(crop[None])).numpy()[0]

    served = features.embedding[features.sha256.index(image_hash(picture))]
    np.testing.assert_allclose(embedding, served, rtol=1e-3, atol=1e-3)


def test_fine_tuning_goes_on_from_the_kept_weights(store: ModelStore) -> None:
    made, source = card(store, "further").backbone, card(store, "tuned").backbone

    assert (made.name, made.weights) == (BACKBONE, "random, seed 0, fine-tuned")
    assert made.sources[0].digest == source.digest
    before, after = (load_features(store.folder(name, 1) / FEATURES_FILE).embedding for name in ("tuned", "further"))
    assert made.digest != source.digest
    np.testing.assert_allclose(after, before, rtol=1e-2, atol=1e-2)


def test_to_keep_weights_may_be_declined(store: ModelStore) -> None:
    assert card(store, "further").backbone.state is None
    assert not (store.folder("further", 1) / STATE_FILE).exists()


def test_a_fine_tuning_starts_from_the_head_of_its_source_if_it_is_told_to(store: ModelStore) -> None:
    report = json.loads((store.folder("further", 1) / REPORT_JSON_FILE).read_text())

    assert report["findings"]["start"]["matched"] == {label: label for label in CRAYONS}


def test_weights_beyond_the_bound_are_not_kept_and_it_says_so() -> None:
    network = tiny_torch_backbone()
    network.network.register_buffer("vast", torch.empty(MOST_BYTES // 4 + 1, device="meta"))

    state, said = keep_state(network, "tiny")

    assert state is None
    assert "were not kept" in said


def test_versions_with_the_same_backbone_find_the_weights_of_the_one_that_kept_them(
    store: ModelStore, data: Path
) -> None:
    run(store, data, "next", backbone="store:tuned")

    assert Source(store.root, "next", 1).state() == store.folder("tuned", 1) / STATE_FILE


@pytest.mark.parametrize("strategy", ["finetune", "auto"])
def test_a_version_without_weights_is_not_fine_tuned_and_the_error_says_what_to_do(
    store: ModelStore, data: Path, strategy: str
) -> None:
    with pytest.raises(
        PreconditionError,
        match=r"store:plain:1 keeps no weights .*: train a head on its backbone, --strategy probe, or fine-tune from "
        r"the original ones, --backbone timm/test_resnet$",
    ):
        run(store, data, "next", strategy, backbone="store:plain")


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_weights_that_are_gone_or_damaged_are_never_gone_on_from(store: ModelStore, data: Path, harm: str) -> None:
    file = store.folder("tuned", 1) / STATE_FILE
    file.unlink() if harm == "gone" else file.write_bytes(bytes(file.stat().st_size))

    with pytest.raises(PreconditionError, match=r"the weights that it left \(state.safetensors\) are gone or damaged"):
        run(store, data, "next", "finetune", backbone="store:tuned")


def test_the_source_may_be_deleted_later(store: ModelStore, data: Path) -> None:
    run(store, data, "next", backbone="store:tuned")

    shutil.rmtree(store.root / "tuned")

    assert run(store, data, "further", backbone="store:next").card.backbone.sources[1].name == "tuned"
    assert network_of(store, "next").backbone == "store:next:1"


def test_lineage_names_every_source_the_nearest_first_in_card_report_and_models_show(
    store: ModelStore, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(store, data, "next", backbone="store:tuned")
    made = run(store, data, "last", backbone="store:next")

    digest = card(store, "tuned").backbone.digest
    assert [(each.name, each.version) for each in made.card.backbone.sources] == [("next", 1), ("tuned", 1)]
    assert f"tuned:1 (backbone {digest})" in made.path.with_name(REPORT_FILE).read_text()
    show_card(models_pb2.Model(name="last"), made.card.model_dump(mode="json"))
    assert f"tuned:1 (backbone {digest[:12]})" in " ".join(capsys.readouterr().out.split())


def test_what_follows_a_version_keeps_its_lineage(store: ModelStore, data: Path, tmp_path: Path) -> None:
    run(store, data, "next", backbone="store:tuned")

    made = quantise_version(store, "next:1", data, examples=str(tmp_path / "none"), cache=tmp_path / "cache")

    assert card(store, "next", made.version).backbone.sources == card(store, "next").backbone.sources


def test_an_int8_version_is_probed_in_int8_and_the_report_says_so(
    store: ModelStore, data: Path, tmp_path: Path
) -> None:
    int8 = quantise_version(store, "tuned:1", data, examples=str(tmp_path / "none"), cache=tmp_path / "cache").version

    made = run(store, data, "next", backbone=f"store:tuned:{int8}")

    assert made.card.backbone.precision == "int8"
    assert made.card.backbone.digest == card(store, "tuned", int8).backbone.digest
    assert "That backbone is int8 and stays so" in made.path.with_name(REPORT_FILE).read_text()


@pytest.mark.parametrize(
    ("backbone", "error", "said"),
    [
        ("store:nobody", PreconditionError, "model 'nobody' has no champion"),
        ("store:tuned:7", NotFoundError, "model 'tuned' has no version 7"),
        ("store:tuned:x", InvalidRequestError, "need NAME or NAME:VERSION"),
    ],
)
def test_a_version_that_is_not_there_is_named(
    store: ModelStore, data: Path, backbone: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        run(store, data, "next", backbone=backbone)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"strategy": "scratch"}, "--backbone: store:tuned: scratch knows nothing"),
        ({"weights": "none"}, "--weights: store:tuned has its own"),
        ({"image_px": 99}, r"--image-px: 99; the backbone of tuned:1 takes pictures of \d+ px alone"),
    ],
)
def test_flags_that_make_no_sense_with_a_version_are_refused(
    store: ModelStore, data: Path, others: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        settle_source(settings(store, data, "next", **{"backbone": "store:tuned", **others}))  # type: ignore[arg-type]


def test_a_damaged_version_is_no_source(store: ModelStore, data: Path) -> None:
    (store.folder("tuned", 1) / MODEL_FILE).write_bytes(b"torn")

    with pytest.raises(ArtifactError, match="not a whole ONNX file"):
        run(store, data, "next", backbone="store:tuned")


def test_a_refresh_begins_where_the_champion_began(store: ModelStore, data: Path) -> None:
    run(store, data, "probed", backbone="store:tuned")

    assert network_of(store, "probed").backbone == "store:probed:1"  # its own file has it
    assert network_of(store, "further").backbone == "store:tuned:1"
    assert network_of(store, "further", backbone=BACKBONE).backbone == BACKBONE
    shutil.rmtree(store.root / "tuned")
    with pytest.raises(InvalidRequestError, match="was fine-tuned from tuned:1, which is gone: store:further goes on"):
        network_of(store, "further")


def test_refreshes_do_not_lengthen_the_lineage(store: ModelStore, data: Path) -> None:
    run(store, data, "next", backbone="store:tuned")
    run(store, data, "next", backbone="store:next")

    made = run(store, data, "next", backbone="store:next")

    assert [(each.name, each.version) for each in made.card.backbone.sources] == [("next", 2), ("tuned", 1)]


def test_a_comparison_refuses_a_version_and_says_why(data: Path) -> None:
    with pytest.raises(InvalidRequestError, match="a comparison trains networks in a store of its own"):
        CompareSettings((data,), ("store:tuned", "resnet18"))


def test_cards_of_before_have_no_lineage(store: ModelStore) -> None:
    fields = card(store, "plain").backbone.model_dump()

    assert BackboneCard.model_validate({key: fields[key] for key in ("name", "weights", "digest")}).sources == ()
