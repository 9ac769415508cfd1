"""Backbones that runs leave in the store, or that are made for it.

No torch.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from regraft.cli.main import app
from regraft.errors import InvalidRequestError, NotFoundError, PreconditionError
from regraft.model import artifact
from regraft.model.card import SourceVersion
from regraft.stores.backbones import BackboneStore, StoredBackbone
from regraft.stores.lifecycle.history import Beginning
from regraft.stores.models import MODEL_FILE, ModelStore
from tests.full_disk import disk_full_after
from tests.tiny import SPEC, publish_tiny, tiny_backbone
from tests.training.conftest import as_exported
from tests.training.float_versions import NAME, photos, publish_float
from training.backbones.cache import ExportedBackbone, stored_backbone
from training.settings import TrainSettings
from training.versions.kept_backbones import BackboneSettings, keep_backbone, make_backbone


def kept(
    store: Path,
    exported: ExportedBackbone,
    *,
    version: str = "colours:2",
    strategy: str = "probe",
    **settings: Any,  # noqa: ANN401 - whatever `TrainSettings` takes
) -> list[StoredBackbone]:
    """Return a store's backbones after a run, which notes nothing."""
    notes: list[str] = []
    run = TrainSettings(store, store=store, **settings)
    keep_backbone(exported, run, strategy, version, store / "cache", notes.append)
    assert not notes
    return BackboneStore(store).list()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"backbone": "resnet18"}, "resnet18"),
        ({"backbone": "timm/test_vit", "weights": "none"}, "timm/test_vit-random"),
        ({"backbone": "resnet18", "weights": "/home/me/bark.pth"}, "resnet18-bark"),
        ({"backbone": "resnet18", "image_px": 160}, "resnet18-160px"),
    ],
)
def test_a_network_that_learned_nothing_is_called_after_itself(
    tmp_path: Path, settings: dict[str, Any], name: str
) -> None:
    (one,) = kept(tmp_path, as_exported(tiny_backbone()), **settings)

    assert one.name == name
    assert one.image == SPEC


@pytest.mark.parametrize("strategy", ["finetune", "scratch", "import"])
def test_one_that_learned_is_called_after_its_version(tmp_path: Path, strategy: str) -> None:
    (one,) = kept(tmp_path, as_exported(tiny_backbone()), strategy=strategy)

    assert one.name == "colours:2"


def test_that_of_another_version_keeps_the_name_of_that_one(tmp_path: Path) -> None:
    exported = as_exported(tiny_backbone())
    source = SourceVersion(name="shapes", version=7, digest=exported.digest)
    going_on = ExportedBackbone(exported.model, "tiny", "none", SPEC, exported.digest, sources=(source,))

    (one,) = kept(tmp_path, going_on, backbone="store:shapes:7")

    assert one.name == "shapes:7"


def test_a_backbone_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    first = kept(tmp_path, as_exported(tiny_backbone()), backbone="resnet18")

    assert kept(tmp_path, as_exported(tiny_backbone()), backbone="resnet34") == first


def test_a_disk_that_is_full_costs_the_run_a_note_and_nothing_else(tmp_path: Path) -> None:
    notes: list[str] = []

    with disk_full_after(50):
        keep_backbone(
            as_exported(tiny_backbone()),
            TrainSettings(tmp_path, store=tmp_path),
            "probe",
            "c:1",
            tmp_path,
            notes.append,
        )

    assert notes[0].startswith("Its backbone is not kept for further models: cannot store the backbone")
    assert BackboneStore(tmp_path).list() == []


def test_the_backbone_of_a_version_is_taken_out_of_its_file_without_torch(tmp_path: Path) -> None:
    models = ModelStore(tmp_path)
    publish_tiny(models)

    made = make_backbone(tmp_path, BackboneSettings("store:colours"), tmp_path / "cache")

    assert made.name == "colours:1"
    again = stored_backbone(BackboneStore(tmp_path), made)
    whole = artifact.read(models.folder("colours", 1) / MODEL_FILE)
    assert (again.digest, again.spec, again.name) == (whole.card.backbone.digest, SPEC, "tiny")


def test_one_in_int8_is_calibrated_on_pictures_and_is_another(tmp_path: Path) -> None:
    publish_float(ModelStore(tmp_path))
    before = make_backbone(tmp_path, BackboneSettings(f"store:{NAME}"), tmp_path / "cache")

    made = make_backbone(
        tmp_path,
        BackboneSettings(f"store:{NAME}", precision="int8", data=photos(tmp_path / "data")),
        tmp_path / "cache",
    )

    assert (made.name, made.backbone.precision) == (f"{NAME}:1-int8", "int8")
    assert made.digest != before.digest
    assert made.published.imagenet_top1 is None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"precision": "int8"}, "Add --data FOLDER"),
        ({"name": "store:colours", "weights": "none"}, "--weights, --image-px: the backbone of store:colours is as it"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, str], complaint: str) -> None:
    with pytest.raises(InvalidRequestError, match=complaint):
        BackboneSettings(**settings)  # type: ignore[arg-type]  # fields by name


def test_a_version_that_is_not_there_has_no_backbone(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no version 3"):
        make_backbone(tmp_path, BackboneSettings("store:colours:3"), tmp_path / "cache")


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["backbones", *map(str, arguments)])


def test_the_commands_carry_a_backbone_from_store_to_store(tmp_path: Path) -> None:
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "colours.onnx"
    publish_tiny(ModelStore(here))

    added = command("add", "store:colours", "--store", here, "--json")
    command("export", "colours:1", file, "--store", here)
    brought = command("import", file, "--store", there, "--json")
    listed = command("list", "--store", there)
    removed = command("remove", json.loads(added.stdout)["digest"][:10], "--store", there)

    first, second = (json.loads(done.stdout) for done in (added, brought))
    assert {**first, "added_at": ""} == {**second, "added_at": ""}
    assert (first["name"], first["precision"], first["input_px"]) == ("colours:1", "fp32", 8)
    assert "imagenet_top1" not in first
    assert first["digest"][:12] in listed.stdout
    assert removed.stdout == "removed colours:1\n"
    assert command("list", "--store", there, "--json").stdout == "[]\n"


def test_a_backbone_that_a_model_waits_for_is_not_removed(tmp_path: Path) -> None:
    publish_tiny(ModelStore(tmp_path))
    made = make_backbone(tmp_path, BackboneSettings("store:colours"), tmp_path / "cache")
    ModelStore(tmp_path).folders.create("birds", Beginning(made.digest, made.name), who="Ann", why="")

    done = command("remove", made.name, "--store", tmp_path)

    assert isinstance(done.exception, PreconditionError)
    assert "is what 'birds' began with: delete them first" in str(done.exception)
    assert BackboneStore(tmp_path).list() == [made]


def test_a_store_without_backbones_says_how_to_get_one(tmp_path: Path) -> None:
    done = command("list", "--store", tmp_path)

    assert "`regraft backbones import FILE` brings one" in done.stdout


def test_a_pattern_of_networks_needs_no_name_of_a_command() -> None:
    assert "--measure" in command("--measure", "--help").stdout
    assert "Put a backbone into the store" in command("--help").stdout
