import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision

from regraft.errors import InvalidRequestError
from regraft.files import cache_folder
from regraft.label_rules import image_hash
from regraft.model.artifact import backbone_digest
from regraft.model.card import EmbeddingKey
from tests.training.conftest import block, in_a_child
from training.backbones.cache import ExportedBackbone, embedding_cache, load_backbone

pytestmark = pytest.mark.usefixtures("one_torch_thread")

NAME = "timm/test_resnet"
TORCH = ("torch", "torchvision", "timm", "onnxscript")

LOAD = """
import sys
from pathlib import Path
from regraft.errors import MissingPackageError
from training.backbones.cache import load_backbone
for folder in sys.argv[2:]:
    try:
        backbone = load_backbone(sys.argv[1], "none", 0, Path(folder))
        print(backbone.digest, backbone.spec.crop_px, backbone.weights)
    except MissingPackageError as error:
        print(error)
    except Exception as error:
        print("not understood:", type(error).__name__, error)
"""


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "here"))

    assert cache_folder() == tmp_path / "here"


@pytest.mark.parametrize("value", [None, ""])
def test_the_cache_is_in_the_home_folder_where_the_environment_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REGRAFT_CACHE", raising=False)
    if value is not None:
        monkeypatch.setenv("REGRAFT_CACHE", value)

    assert cache_folder() == tmp_path / ".cache" / "regraft"


def test_an_exported_backbone_knows_its_name_its_weights_and_its_digest(
    exported: Callable[[str], ExportedBackbone],
) -> None:
    backbone = exported(NAME)

    assert (backbone.name, backbone.weights) == (NAME, "random, seed 0")
    assert backbone.digest == backbone_digest(backbone.model)
    assert backbone.key == EmbeddingKey(backbone.digest, backbone.spec.digest())


def test_the_second_load_needs_no_torch(
    tmp_path: Path, backbones_folder: Path, exported: Callable[[str], ExportedBackbone]
) -> None:
    backbone = exported(NAME)
    environment = block(tmp_path, TORCH, "raise SystemExit('torch was imported')")

    child = in_a_child(["-c", LOAD, NAME, str(backbones_folder)], environment)

    assert child.stdout.strip() == f"{backbone.digest} {backbone.spec.crop_px} random, seed 0", child.stderr


def graph_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.onnx")
    return path


def spec_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.json")
    return path


def truncate(folder: Path) -> None:
    path = graph_file(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder: Path) -> None:
    graph_file(folder).write_bytes(b"")


def flip(folder: Path) -> None:
    """Change one bit of a weight, which leaves a valid graph."""
    path = graph_file(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forget_the_graph(folder: Path) -> None:
    graph_file(folder).unlink()


def forget_the_spec(folder: Path) -> None:
    spec_file(folder).unlink()


def cut_the_spec(folder: Path) -> None:
    spec_file(folder).write_text(spec_file(folder).read_text()[:20])


def spec_of(fields: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        spec_file(folder).write_text(json.dumps(fields))

    return write


def without(*names: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        fields = json.loads(spec_file(folder).read_text())
        spec_file(folder).write_text(json.dumps({key: value for key, value in fields.items() if key not in names}))

    return write


DAMAGES = {
    "half a graph": truncate,
    "an empty graph": empty,
    "a changed bit": flip,
    "no graph": forget_the_graph,
    "no spec": forget_the_spec,
    "half a spec": cut_the_spec,
    "a spec that is a list": spec_of([]),
    "a spec that is a number": spec_of(3),
    "a spec with unknown fields": spec_of({"spec": {"colour": "red"}, "digest": "0"}),
    "a spec that is impossible": spec_of({"spec": {"crop_px": -1}, "digest": "0"}),
    "a spec of another image rule": spec_of({"spec": {"rule_version": 999}, "digest": "0"}),
    "no image spec": without("spec"),
    "no digest": without("digest"),
    "no notes, as before they were kept": without("notes"),
}


def only(digest: str, source: Path, folder: Path) -> Path:
    """Copy the entry of `NAME` from a cache, which may have its digest under other settings too, into an empty one."""
    for spec in source.rglob("*.json"):
        if json.loads(spec.read_text())["digest"] != digest:
            continue
        for path in (spec, spec.with_suffix(".onnx")):
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        load_backbone(NAME, "none", 0, folder)
        if len(list(folder.rglob("*.onnx"))) == 1:
            return folder
        shutil.rmtree(folder)  # an entry of other settings: it was not taken, and another one written
    raise LookupError(digest)


@pytest.fixture(scope="module")
def loaded_without_torch(
    tmp_path_factory: pytest.TempPathFactory, backbones_folder: Path, exported: Callable[[str], ExportedBackbone]
) -> dict[str, str]:
    """Damage an entry in every way, load each in a process without torch, and return what that says."""
    root = tmp_path_factory.mktemp("damaged")
    folders = []
    for number, damage in enumerate(DAMAGES.values()):
        folders.append(only(exported(NAME).digest, backbones_folder, root / str(number)))
        damage(folders[-1])
    environment = block(root / "blocked", TORCH, "raise ImportError('hidden by the test')")
    child = in_a_child(["-c", LOAD, NAME, *map(str, folders)], environment)
    assert child.returncode == 0, child.stderr
    return dict(zip(DAMAGES, child.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_counts_as_none(loaded_without_torch: dict[str, str], damage: str) -> None:
    """Without torch it cannot be made anew, so the complaint that torch is missing shows that it was not used."""
    said = loaded_without_torch[damage]

    assert said.startswith(f"{NAME} was never exported on this machine, which needs torch"), said
    assert "pip install 'regraft[train]'" in said


def test_a_damaged_entry_is_made_anew_and_is_the_same_again(
    tmp_path: Path, backbones_folder: Path, exported: Callable[[str], ExportedBackbone]
) -> None:
    folder = only(exported(NAME).digest, backbones_folder, tmp_path / "cache")
    good = graph_file(folder).read_bytes()
    flip(folder)

    backbone = load_backbone(NAME, "none", 0, folder)

    assert backbone.digest == exported(NAME).digest
    assert graph_file(folder).read_bytes() == good


def test_weights_from_a_file_are_told_from_others_by_their_bytes(
    tmp_path: Path, exported: Callable[[str], ExportedBackbone]
) -> None:
    weights = tmp_path / "weights.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), weights)

    backbone = load_backbone(NAME, str(weights), 5, tmp_path / "cache")

    assert backbone.weights == f"file weights.pth, sha256 {image_hash(weights.read_bytes())}"
    assert backbone.digest == exported(NAME).digest  # the same numbers as those of the seed 0
    weights.write_bytes(b"other weights")
    with pytest.raises(InvalidRequestError, match="not a state dict"):  # so the entry of the old bytes was not taken
        load_backbone(NAME, str(weights), 5, tmp_path / "cache")


def test_what_was_left_out_of_a_file_is_said_from_the_cache_too(tmp_path: Path) -> None:
    weights = tmp_path / "mine.pth"
    torch.save(timm.create_model("test_resnet", num_classes=5).state_dict(), weights)

    first, again = (load_backbone(NAME, str(weights), 0, tmp_path / "cache") for _ in range(2))

    assert first.notes == again.notes == ("mine.pth has a head of 5 classes, which was left out",)
    assert len(list(tmp_path.rglob("*.onnx"))) == 1


def test_a_backbone_for_pictures_of_another_size_is_another_one(
    backbones_folder: Path, exported: Callable[[str], ExportedBackbone]
) -> None:
    usual = exported(NAME)

    other, again = (load_backbone(NAME, "none", 0, backbones_folder, image_px=96) for _ in range(2))

    assert (usual.spec.crop_px, other.spec.crop_px) == (160, 96)
    assert other.digest == again.digest != usual.digest
    assert other.spec == again.spec
    assert other.key != usual.key


def test_a_size_that_the_network_cannot_take_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"^--image-px: timm/test_vit cannot take pictures of 100 px"):
        load_backbone("timm/test_vit", "none", 0, tmp_path, image_px=100)

    assert not list(tmp_path.rglob("*.onnx"))


@pytest.mark.parametrize("name", ["resnet19", "timm/resnet19", "", "../../etc/passwd"])
def test_an_unknown_backbone_is_refused_and_leaves_nothing_in_the_cache(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^--backbone: "):
        load_backbone(name, "none", 0, tmp_path)

    assert not list(tmp_path.rglob("*.onnx"))


@pytest.mark.parametrize("weights", ["nowhere.pth", "Default", "imagenet", "", "/"])
def test_weights_that_are_neither_a_word_nor_a_file_are_refused(tmp_path: Path, weights: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^--weights: .*neither 'default', 'none' nor a file"):
        load_backbone("squeezenet1_1", weights, 0, tmp_path)


def test_weights_of_another_network_are_refused_and_leave_nothing_in_the_cache(tmp_path: Path) -> None:
    torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), tmp_path / "weights.pth")

    with pytest.raises(InvalidRequestError, match=r"^--weights: .*weights\.pth does not fit squeezenet1_1"):
        load_backbone("squeezenet1_1", str(tmp_path / "weights.pth"), 0, tmp_path)

    assert not list(tmp_path.rglob("*.onnx"))


def test_progress_is_told_before_and_after(backbones_folder: Path, exported: Callable[[str], ExportedBackbone]) -> None:
    exported(NAME)
    told: list[tuple[str, int, int]] = []

    load_backbone(NAME, "none", 0, backbones_folder, lambda stage, done, total: told.append((stage, done, total)))

    assert told == [("export", 0, 1), ("export", 1, 1)]


def test_training_runs_share_their_embeddings(tmp_path: Path) -> None:
    key, vectors = EmbeddingKey("a" * 64, "b" * 64), {"c" * 64: torch.ones(3).numpy()}

    with embedding_cache(tmp_path) as cache:
        cache.put(key, vectors)

    with embedding_cache(tmp_path) as cache:
        assert list(cache.get(key, vectors)) == ["c" * 64]
