import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import (
    ArtifactError,
    DatasetError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    RegraftError,
    TrainingError,
)
from regraft.image.decode import decode_crop
from regraft.image.spec import RULE_VERSION
from regraft.label_rules import image_hash
from regraft.model import artifact
from regraft.model.artifact import EMBEDDING, IMAGE, backbone_digest
from regraft.model.session import open_session
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import example_images
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, REPORT_JSON_FILE, ModelStore
from tests.tiny import SPEC, picture, publish_tiny
from tests.training.float_versions import LABELS, NAME, photos, publish_float
from training.head.features import load_features
from training.quantisation.version import Quantised, quantise_version


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos")


def run(store: ModelStore, data: Path, wanted: str = NAME, **flags: Any) -> Quantised:  # noqa: ANN401 - its flags
    given: dict[str, Any] = {"examples": str(store.root / ".examples"), "cache": store.root.parent / "cache", **flags}
    return quantise_version(store, wanted, data, **given)


def test_the_new_version_is_int8_with_the_very_same_head_and_its_own_embeddings(store: ModelStore, data: Path) -> None:
    parent = publish_float(store)
    before = artifact.read(store.folder(NAME, parent) / MODEL_FILE)

    result = run(store, data)

    after = artifact.read(result.path)
    assert (result.version, result.parent_version, result.promoted) == (2, parent, False)
    assert (after.card.backbone.precision, after.card.parent_version, after.card.seed) == ("int8", parent, 3)
    assert after.card.backbone.digest == backbone_digest(artifact.ungraft(after.model)) != before.card.backbone.digest
    assert after.head.digest() == before.head.digest()
    assert after.card.novelty_method == before.card.novelty_method
    assert after.card.novelty_threshold == before.card.novelty_threshold
    assert after.card.data_digest == before.card.data_digest
    assert store.champion(NAME) == parent
    features, old = (load_features(store.folder(NAME, version) / FEATURES_FILE) for version in (2, parent))
    assert (features.sha256, features.labels) == (old.sha256, old.labels)
    assert (features.is_holdout == old.is_holdout).all()
    session = open_session(result.path, provider="cpu", threads=1).session
    crop = decode_crop(picture("red", 1), SPEC)
    row = features.sha256.index(image_hash(picture("red", 1)))
    np.testing.assert_array_equal(session.run([EMBEDDING], {IMAGE: crop[None]})[0][0], features.embedding[row])


def test_a_class_that_has_left_stays_away_though_its_pictures_are_still_in_the_folder(
    store: ModelStore, data: Path
) -> None:
    publish_float(store)
    left = publish_float(store, ("blue", "red"))

    result = run(store, data)

    after = artifact.read(result.path)
    features = load_features(store.folder(NAME, result.version) / FEATURES_FILE)
    assert (result.parent_version, after.card.labels, features.labels) == (left, ("blue", "red"), ("blue", "red"))
    assert after.head.weight.shape[0] == 2
    assert after.card.metrics is not None
    assert [entry.label for entry in after.card.metrics.per_class] == ["blue", "red"]
    assert image_hash(picture("green", 1)) not in features.sha256


def test_what_its_retrains_go_by_and_the_threshold_of_abstention_stay(store: ModelStore, data: Path) -> None:
    publish_float(store, settings={"balance": "on", "target_error": 0.4})
    before = artifact.read(store.folder(NAME, 1) / MODEL_FILE).card

    after = artifact.read(run(store, data).path).card

    assert (after.settings["balance"], after.settings["target_error"]) == ("on", 0.4)
    assert after.abstention == before.abstention
    assert after.abstention is not None


def test_the_two_are_compared_on_the_holdout(store: ModelStore, data: Path) -> None:
    publish_float(store)

    fields = run(store, data).to_dict()

    assert fields["holdout_images"] == 15
    assert fields["agreement"] == 1.0
    assert fields["objections"] == ()
    assert (fields["fp32"]["precision"], fields["int8"]["precision"]) == ("fp32", "int8")
    assert fields["fp32"]["accuracy"] == fields["int8"]["accuracy"] == 1.0
    assert fields["speed_up"] == pytest.approx(fields["fp32"]["ms"] / fields["int8"]["ms"], abs=0.001)


def test_the_history_says_why(store: ModelStore, data: Path) -> None:
    publish_float(store)

    run(store, data, f"{NAME}:1", promote=True)

    published, promoted = store.history(NAME)[-2:]
    assert (published.event, promoted.event) == ("publish", "promote")
    assert published.why == promoted.why == "int8 of version 1: holdout accuracy 1.0000 -> 1.0000"
    assert store.champion(NAME) == 2


def test_a_champion_that_came_meanwhile_is_not_overruled(store: ModelStore, data: Path) -> None:
    publish_float(store)
    publish_float(store)

    def promote_another(stage: str, _done: int, _total: int) -> None:
        if stage == "embed" and store.champion(NAME) == 2:
            store.move(NAME, 1, who="Ann", why="she was faster")

    with pytest.raises(PreconditionError, match="is now version 1, not 2: look again"):
        run(store, data, promote=True, progress=promote_another)

    assert (store.champion(NAME), store.versions(NAME)) == (1, [1, 2, 3])


def test_a_version_without_a_holdout_is_published_but_never_promoted(store: ModelStore, data: Path) -> None:
    publish_float(store, holdout=False)

    result = run(store, data, promote=True)

    assert (result.agreement, result.int8.accuracy, result.promoted) == (None, None, False)
    assert "no holdout images" in result.objections[0]
    assert store.champion(NAME) == 1


def test_pictures_that_came_over_grpc_are_found_among_the_examples(store: ModelStore, data: Path) -> None:
    publish_float(store)
    examples = ExamplesStore(store.root / ".examples")
    for number in range(5):
        examples.add(NAME, picture("blue", number), "blue")
        (data / str(number % 4) / f"blue-{number}.png").unlink()
    examples.close()

    assert run(store, data).version == 2


def test_pictures_that_cannot_be_read_any_more_are_left_out_by_hash_and_name(store: ModelStore, data: Path) -> None:
    damaged = [picture("red", number)[:-40] for number in (100, 101)]
    publish_float(store, unreadable=damaged)
    for number, content in enumerate(damaged):
        (data / f"damaged-{number}.png").write_bytes(content)

    result = run(store, data)

    features = load_features(result.path.parent / FEATURES_FILE)
    assert len(features.sha256) == 45
    assert not {image_hash(content) for content in damaged} & set(features.sha256)
    left_out = json.loads((result.path.parent / REPORT_JSON_FILE).read_text())["left_out"]
    names = {f"{image_hash(content)} ({data / f'damaged-{number}.png'})" for number, content in enumerate(damaged)}
    assert {entry["file"] for entry in left_out} == names
    assert all("cannot be decoded" in entry["reason"] for entry in left_out)


def test_every_stage_is_told(store: ModelStore, data: Path) -> None:
    publish_float(store)
    told: dict[str, tuple[int, int]] = {}

    run(store, data, progress=lambda stage, done, total: told.update({stage: (done, total)}))

    assert list(told) == ["scan", "quantise", "embed", "measure"]
    assert all(done == total for done, total in told.values())


def lose_pictures(store: ModelStore, data: Path) -> str:
    publish_float(store)
    shutil.rmtree(data / "1")
    return NAME


def spoil_a_picture(store: ModelStore, data: Path) -> str:
    publish_float(store)
    (data / "1" / "blue-1.png").write_bytes(b"no picture")
    return NAME


def quantise_twice(store: ModelStore, data: Path) -> str:
    publish_float(store)
    return f"{NAME}:{run(store, data).version}"


def publish_without_layers(store: ModelStore, data: Path) -> str:
    publish_tiny(store, LABELS)
    for label in LABELS:
        for number in range(30):
            (data / f"{label}-{number}.png").write_bytes(picture(label, number))
    return NAME


def publish_loud(store: ModelStore, _data: Path) -> str:
    publish_float(store, loud=1e5)
    return NAME


def of_another_rule(store: ModelStore, _data: Path) -> str:
    path = store.folder(NAME, publish_float(store)) / MODEL_FILE
    path.write_bytes(path.read_bytes().replace(f'"rule_version": {RULE_VERSION}'.encode(), b'"rule_version": 7'))
    return NAME


def without_a_champion(store: ModelStore, _data: Path) -> str:
    publish_tiny(store, LABELS, promote=False)
    return NAME


def named(wanted: str) -> Callable[[ModelStore, Path], str]:
    def publish_and_name(store: ModelStore, _data: Path) -> str:
        publish_float(store)
        return wanted

    return publish_and_name


REFUSED: Mapping[str, tuple[Callable[[ModelStore, Path], str], type[RegraftError], str]] = {
    "pictures are missing": (lose_pictures, DatasetError, r"12 of the version's 45 images .*--data\) .*--examples\)"),
    "a picture was overwritten": (spoil_a_picture, DatasetError, r"1 of the version's 45 images are neither"),
    "it is int8 already": (quantise_twice, PreconditionError, "colours:2 is int8 already"),
    "there is nothing to quantise": (publish_without_layers, ArtifactError, "neither convolutions nor matrix"),
    "int8 is nonsense": (publish_loud, TrainingError, r"int8 is right on .* fp32 on .*: more than 5 points are lost"),
    "made with another image rule": (
        of_another_rule,
        ArtifactError,
        f"image rule 7, this Regraft has rule {RULE_VERSION}",
    ),
    "nothing was promoted": (without_a_champion, PreconditionError, "no champion .* name a version, .*colours:1"),
    "no such version": (named("colours:9"), NotFoundError, r"has no version 9 .*\(it has: 1\)"),
    "no such model": (named("flowers:1"), NotFoundError, "model 'flowers' has no version 1"),
    "no number": (named("colours:last"), InvalidRequestError, "'colours:last': need NAME or NAME:VERSION"),
    "no name": (named("../x:1"), InvalidRequestError, "model name '../x'"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_nothing_is_published_where(which: str, store: ModelStore, data: Path) -> None:
    prepare, error, complaint = REFUSED[which]
    wanted = prepare(store, data)
    before = store.history(NAME)

    with pytest.raises(error, match=complaint):
        run(store, data, wanted)

    assert store.history(NAME) == before


def test_a_folder_that_is_not_there_is_refused_by_the_name_of_the_flag(store: ModelStore, tmp_path: Path) -> None:
    publish_float(store)

    with pytest.raises(DatasetError, match=r"--data: .*nowhere: not a folder"):
        run(store, tmp_path / "nowhere")


def test_a_kept_picture_lies_where_the_examples_store_puts_it(tmp_path: Path) -> None:
    examples = ExamplesStore(tmp_path / "examples")
    examples.add(NAME, b"picture", "red")
    examples.close()

    assert example_images(str(tmp_path / "examples")).file(image_hash(b"picture")).read_bytes() == b"picture"


def command(store: ModelStore, data: Path, *flags: str) -> list[str]:
    return ["models", "quantise", NAME, "--data", str(data), "--store", str(store.root), *flags]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))


def test_the_command_shows_both_and_what_to_do_next(store: ModelStore, data: Path) -> None:
    publish_float(store)

    result = CliRunner().invoke(app, command(store, data))

    assert result.exit_code == 0, result.output
    for said in ("fp32", "int8", "ms an image, one thread", "1.0000 (", "both answer alike on 100.0%"):
        assert said in result.stdout
    assert f"regraft models promote 2 --name {NAME}" in result.stdout


def test_the_command_promotes_and_prints_for_machines(store: ModelStore, data: Path) -> None:
    publish_float(store)

    result = CliRunner().invoke(app, command(store, data, "--promote", "--json"))

    assert result.exit_code == 0, result.output
    fields = json.loads(result.stdout)
    assert (fields["version"], fields["promoted"], fields["objections"]) == (2, True, [])
    assert store.champion(NAME) == 2


def test_the_command_fails_where_the_gate_objects_to_the_promotion(store: ModelStore, data: Path) -> None:
    publish_float(store, holdout=False)

    result = CliRunner().invoke(app, command(store, data, "--promote"))

    assert result.exit_code == 1
    assert "the gate objects: there are no holdout images" in result.stdout
    assert store.champion(NAME) == 1
