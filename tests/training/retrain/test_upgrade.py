"""Older versions are made from today's: the card says another rule, or less, as it did then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import ArtifactError, DatasetError
from regraft.image.spec import RULE_VERSION
from regraft.label_rules import image_hash
from regraft.model import artifact
from regraft.model.artifact import ungraft
from regraft.stores.examples import ExamplesStore
from regraft.stores.models import MODEL_FILE, GateMode, ModelStore
from regraft.stores.older_versions import find_older, read_older
from tests.live_server import LiveServer
from tests.tiny import COLOURS, picture, publish_tiny
from tests.training.classifiers import save_classifier
from training.head.features import assemble, load_features
from training.importing.import_version import ImportSettings, import_version
from training.retrain.data import rows_of
from training.retrain.upgrade import Upgraded, upgrade
from training.versions.read import read_version
from training.versions.verify import verify

Change = Callable[[dict[str, Any], onnx.ModelProto], None]


def of_rule(number: int) -> Change:
    def change(card: dict[str, Any], _: onnx.ModelProto) -> None:
        card["image"]["rule_version"] = number

    return change


def from_before_whitening(card: dict[str, Any], model: onnx.ModelProto) -> None:
    """Novelty was another, and neither the card nor the file had what it needs today."""
    del card["novelty_method"]
    fields: tuple[Any, ...] = (model.graph.initializer, model.graph.input)
    for values in fields:
        [place] = [place for place, value in enumerate(values) if value.name == "head.whitening"]
        del values[place]


OLDER: dict[str, tuple[Change, str]] = {
    "an older image rule": (of_rule(1), f"made with image rule 1, this Regraft has rule {RULE_VERSION}"),
    "an older card": (from_before_whitening, "card: field 'novelty_method'"),
}


def make(store: ModelStore, version: int, change: Change, name: str = "colours") -> None:
    path = store.folder(name, version) / MODEL_FILE
    model = onnx.load_model(path)
    [card] = [prop for prop in model.metadata_props if prop.key == artifact.CARD_KEY]
    fields = json.loads(card.value)
    change(fields, model)
    card.value = json.dumps(fields)
    onnx.save_model(model, path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The pictures that the versions of `tests.tiny` were fitted on."""
    for label in COLOURS:
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for number in range(30):
            (folder / f"{number}.png").write_bytes(picture(label, number))
    return tmp_path / "photos"


@pytest.fixture
def redo(store: ModelStore, photos: Path, tmp_path: Path) -> Callable[..., list[Upgraded]]:
    """A function that upgrades the store."""

    def run(data: Path | None = photos, gate: GateMode = GateMode.AUTO) -> list[Upgraded]:
        examples = ExamplesStore(store.root / ".examples", "")
        try:
            places = str(store.root / ".examples")
            return list(upgrade(store, examples, places, data, cache=tmp_path / "cache", gate=gate))
        finally:
            examples.close()

    return run


def test_versions_that_can_be_served_are_not_listed(store: ModelStore) -> None:
    assert list(find_older(store)) == []


@pytest.mark.parametrize("what", OLDER)
def test_older_versions_are_listed_with_the_reason_and_whether_they_serve(what: str, store: ModelStore) -> None:
    change, reason = OLDER[what]
    publish_tiny(store, sharpness=3.0)
    publish_tiny(store, sharpness=4.0, promote=False)
    for version in (1, 2):
        make(store, version, change)

    first, second = find_older(store)

    assert (first.name, first.version, first.is_champion) == ("colours", 1, False)
    assert (second.name, second.version, second.is_champion) == ("colours", 2, True)
    assert reason in first.reason


def test_damaged_versions_and_those_of_a_newer_regraft_are_none(store: ModelStore) -> None:
    make(store, 1, of_rule(RULE_VERSION + 1))
    publish_tiny(store)
    path = store.folder("colours", 2) / MODEL_FILE
    path.write_bytes(path.read_bytes()[:500])

    assert list(find_older(store)) == []
    with pytest.raises(ArtifactError, match="newer Regraft"):
        read_older(store.folder("colours", 1) / MODEL_FILE)


@pytest.mark.parametrize("what", OLDER)
def test_an_upgrade_redoes_embeddings_and_head_of_the_champion_and_it_serves(
    what: str, store: ModelStore, redo: Callable[..., list[Upgraded]]
) -> None:
    backbone = ungraft(artifact.read(store.folder("colours", 1) / MODEL_FILE).model)
    make(store, 1, OLDER[what][0])
    with LiveServer(store) as live:
        assert not live.client.is_serving()

    [made] = redo()

    assert (made.version, made.parent_version, made.promoted) == (2, 1, True)
    assert made.verdict.blessed
    new = read_version(store, "colours", 2)
    assert ungraft(new.artifact.model) == backbone
    assert new.artifact.card.image.rule_version == RULE_VERSION
    assert new.features.sha256 == load_features(store.folder("colours", 1) / "features.npz").sha256
    assert verify(store, "colours:2").holds
    assert store.history("colours")[-1].why.startswith("upgrade: holdout accuracy ")
    assert list(redo()) == []
    with LiveServer(store) as live:
        answer = live.client.classify(picture("green", 99))
        assert (answer.predictions[0].label, answer.version) == ("green", 2)


def test_pictures_that_came_over_grpc_are_found_among_the_examples(
    store: ModelStore, redo: Callable[..., list[Upgraded]]
) -> None:
    labels = artifact.read(store.folder("colours", 1) / MODEL_FILE).card.labels
    with LiveServer(store) as live:
        list(live.client.add_examples([(picture(label, number), label) for label in labels for number in range(30)]))
    make(store, 1, of_rule(1))

    [made] = redo(data=None)

    assert made.promoted


def test_pictures_that_are_nowhere_are_counted_and_nothing_is_changed(
    store: ModelStore, photos: Path, redo: Callable[..., list[Upgraded]]
) -> None:
    make(store, 1, of_rule(1))
    for path in (photos / "red").iterdir():
        path.unlink()

    with pytest.raises(DatasetError, match="30 of the version's 90 images are neither in"):
        redo()
    assert store.versions("colours") == [1]


def test_a_picture_that_cannot_be_read_any_more_is_left_out_and_named(
    store: ModelStore, photos: Path, redo: Callable[..., list[Upgraded]]
) -> None:
    """As a damaged one, which older Regrafts took for half a picture."""
    name = publish_with_damage(store, photos)
    make(store, 2, of_rule(1))

    [made] = redo()

    features = load_features(store.folder("colours", made.version) / "features.npz")
    assert name not in features.sha256
    assert len(features.sha256) == 90
    assert name in (store.folder("colours", made.version) / "report.html").read_text()


def test_with_the_gate_on_manual_the_version_waits(store: ModelStore, redo: Callable[..., list[Upgraded]]) -> None:
    make(store, 1, of_rule(1))

    [made] = redo(gate=GateMode.MANUAL)

    assert made.verdict.blessed
    assert not made.promoted
    assert store.champion("colours") == 1


def test_the_command_checks_upgrades_and_has_nothing_left_to_do(
    store: ModelStore, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    make(store, 1, of_rule(1))

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["upgrade", str(store.root), *arguments])
        return done.exit_code, done.stdout

    code, said = run("--check")
    assert code == 1
    assert "colours:1, the champion: image spec: made with image rule 1" in " ".join(said.split())
    assert "regraft upgrade" in said
    code, said = run("--check", "--json")
    assert (code, [entry["version"] for entry in json.loads(said)]) == (1, [1])

    code, said = run("--data", str(photos))
    assert code == 0
    assert "version 1 -> 2, accuracy " in said
    assert "version 2 is the champion" in said

    assert run("--data", str(photos)) == (0, "nothing to do: this Regraft can serve every champion\n")
    assert run("--check")[0] == 0  # version 1 is still listed, and does not serve


def publish_with_damage(store: ModelStore, photos: Path) -> str:
    """Publish a version that knows one picture more, which is none; return its hash."""
    damaged = b"no picture"
    (photos / "red" / "damaged.png").write_bytes(damaged)
    name = image_hash(damaged)
    path = store.folder("colours", publish_tiny(store, sharpness=3.0)) / "features.npz"
    features = load_features(path)
    embeddings = dict(zip(features.sha256, features.embedding, strict=True)) | {name: features.embedding[0]}
    path.unlink()
    assemble(features.labels, [*rows_of(features), (name, "red", False)], embeddings).save(path)
    return name


def test_an_imported_version_without_pictures_has_to_be_imported_again(
    tmp_path: Path, redo: Callable[..., list[Upgraded]], store: ModelStore
) -> None:
    file = save_classifier(tmp_path / "net.onnx")
    import_version(
        ImportSettings(file, "brought", store.root, labels=("red", "green", "blue")), cache=tmp_path / "cache"
    )
    make(store, 1, of_rule(1), "brought")

    with pytest.raises(DatasetError, match="brought:1 has no pictures to fit a head on: import it again"):
        redo()
