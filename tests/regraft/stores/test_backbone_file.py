from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from regraft.errors import ArtifactError, InvalidRequestError, NotFoundError, StorageError
from regraft.model.artifact import EMBEDDING, IMAGE
from regraft.model.backbone_trial import examine
from regraft.model.session import open_session
from regraft.stores.backbone_file import DESCRIPTION_KEY, bring_backbones, export_backbone, import_backbone
from regraft.stores.backbones import BackboneStore, StoredBackbone
from tests.full_disk import disk_full_after
from tests.regraft.stores.test_backbones import add, described
from tests.tiny import tiny_backbone


@pytest.fixture
def store(tmp_path: Path) -> BackboneStore:
    return BackboneStore(tmp_path / "store")


@pytest.fixture
def exported(store: BackboneStore, tmp_path: Path) -> Path:
    add(store)
    export_backbone(store, "tiny", tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


def rewritten(exported: Path, description: str | None) -> Path:
    """Write another description into an exported file."""
    graph = onnx.load_model(exported)
    del graph.metadata_props[:]
    if description is not None:
        helper.set_model_props(graph, {DESCRIPTION_KEY: description})
    onnx.save_model(graph, exported)
    return exported


def facts(backbone: StoredBackbone) -> dict[str, object]:
    return backbone.model_dump(exclude={"added_at"})


def test_a_backbone_goes_from_store_to_store_as_one_file(store: BackboneStore, exported: Path, tmp_path: Path) -> None:
    other = BackboneStore(tmp_path / "other")

    imported = import_backbone(other, exported)

    assert facts(imported) == facts(store.find("tiny"))
    assert other.list() == [imported]
    assert other.read(imported) == tiny_backbone()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "store", "tiny.onnx"]


def test_the_file_is_one_that_every_runtime_runs(exported: Path) -> None:
    session = open_session(exported, provider="cpu", threads=1).session

    (embedding,) = session.run([EMBEDDING], {IMAGE: np.zeros((2, 8, 8, 3), np.uint8)})

    assert embedding.shape == (2, 12)


def test_importing_what_is_there_changes_nothing(store: BackboneStore, exported: Path) -> None:
    before = store.list()

    assert [import_backbone(store, exported, examine)] == before
    assert store.list() == before


def test_no_file_is_overwritten(store: BackboneStore, exported: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"tiny.onnx is there already"):
        export_backbone(store, "tiny", exported)


def test_the_trial_comes_first_and_ends_the_import(exported: Path, tmp_path: Path) -> None:
    def refuse(data: bytes) -> None:
        raise ArtifactError(f"{len(data)} bytes of nothing good")

    with pytest.raises(ArtifactError, match=r"tiny.onnx: \d+ bytes of nothing good"):
        import_backbone(BackboneStore(tmp_path / "other"), exported, refuse)

    assert not (tmp_path / "other").exists()


def test_what_the_store_lacks_is_not_exported(store: BackboneStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="backbone 'huge' is not in"):
        export_backbone(store, "huge", tmp_path / "huge.onnx")


def test_a_full_disk_leaves_no_half_file(store: BackboneStore, exported: Path, tmp_path: Path) -> None:
    target = tmp_path / "again.onnx"

    with disk_full_after(100), pytest.raises(StorageError, match=r"cannot write .*again.onnx"):
        export_backbone(store, "tiny", target)

    assert not target.exists()
    assert exported.exists()


def test_a_file_without_a_description_is_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"tiny.onnx: no description .* not written by `regraft backbones export`"):
        import_backbone(BackboneStore(tmp_path / "other"), rewritten(exported, None), examine)


def test_the_description_of_another_graph_is_refused(exported: Path, tmp_path: Path) -> None:
    other = described(tiny_backbone(2.0)).to_json()

    with pytest.raises(ArtifactError, match=r"tiny.onnx: the graph is not the one .* \(digest differs\)"):
        import_backbone(BackboneStore(tmp_path / "other"), rewritten(exported, other), examine)

    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"name": "tiny"', '"name": "' + "x" * 70_000 + '"', "characters, 65536 at most"),
        ('"digest": "', '"digest": "../../../../etc/', "field 'backbone.digest'"),
        ('"crop_px": 8', '"crop_px": 7', "the graph takes 8 px, the description crops 7 px"),
        ('"embedding_size": 12', '"embedding_size": 13', "embedding has 12 values"),
        ('"licence": "CC0-1.0"', r'"licence": "\u001b[2J"', "cannot be printed"),
    ],
)
def test_a_description_that_lies_is_refused(
    store: BackboneStore, exported: Path, tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    text = store.find("tiny").to_json()
    assert old in text

    with pytest.raises(ArtifactError, match=complaint):
        import_backbone(BackboneStore(tmp_path / "other"), rewritten(exported, text.replace(old, new)), examine)

    assert not (tmp_path / "other").exists()


def test_a_place_that_is_no_file_is_refused(store: BackboneStore, tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")

    with pytest.raises(InvalidRequestError, match="there is no file"):
        import_backbone(store, tmp_path / "nowhere.onnx")
    with pytest.raises(InvalidRequestError, match="there is no file"):
        import_backbone(store, tmp_path)
    with pytest.raises(ArtifactError, match="0 bytes"):
        import_backbone(store, tmp_path / "empty.onnx")


def test_a_folder_of_files_is_brought_and_a_bad_one_holds_up_no_other(
    exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "rubbish.onnx").write_bytes(b"rubbish")
    (tmp_path / "notes.txt").write_text("no backbone")
    other = BackboneStore(tmp_path / "other")

    first, again = bring_backbones(other, tmp_path), bring_backbones(other, tmp_path)

    assert [each.name for each in first] == ["tiny"]
    assert first == again == other.list()
    assert f"no backbone comes from {tmp_path / 'rubbish.onnx'}" in caplog.text
    assert exported.exists()
    with pytest.raises(StorageError, match="--backbones: there is no folder"):
        bring_backbones(other, tmp_path / "nowhere")


def test_a_file_beyond_what_onnx_can_be_is_not_even_read(store: BackboneStore, tmp_path: Path) -> None:
    with (tmp_path / "sparse.onnx").open("wb") as file:
        file.truncate(2**40)

    with pytest.raises(ArtifactError, match="1099511627776 bytes"):
        import_backbone(store, tmp_path / "sparse.onnx")
