import json
import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from regraft.errors import ArtifactError, InvalidRequestError, NotFoundError, PreconditionError, StorageError
from regraft.model.artifact import EMBEDDING, IMAGE, backbone_digest, graft_blank, read, ungraft
from regraft.model.card import BackboneCard, KeptState, Precision
from regraft.model.session import open_session
from regraft.stores.backbones import (
    DESCRIPTION_FILE,
    GRAPH_FILE,
    BackboneStore,
    PublishedWeights,
    StoredBackbone,
    describe,
    parse_description,
)
from regraft.stores.models import MODEL_FILE, ModelStore
from tests.full_disk import disk_full_after
from tests.tiny import SPEC, publish_tiny, tiny_backbone

PUBLISHED = PublishedWeights(source="example.org", licence="CC0-1.0", imagenet_top1=0.5, imagenet_top1_source="a paper")


def described(
    graph: onnx.ModelProto, name: str = "tiny", *, precision: Precision = "fp32", state: KeptState | None = None
) -> StoredBackbone:
    card = BackboneCard(name="tiny", weights="none", digest=backbone_digest(graph), precision=precision, state=state)
    return describe(graph, name, card, SPEC, PUBLISHED)


def add(store: BackboneStore, name: str = "tiny", scale: float = 1.0) -> StoredBackbone:
    graph = tiny_backbone(scale)
    return store.add(graph, described(graph, name))


def fields_of(store: BackboneStore, digest: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(store.file(digest).with_name(DESCRIPTION_FILE).read_bytes())
    return fields


@pytest.fixture
def store(tmp_path: Path) -> BackboneStore:
    return BackboneStore(tmp_path / "store")


def test_an_empty_store_has_none_and_says_how_to_get_one(store: BackboneStore) -> None:
    assert store.list() == []
    with pytest.raises(NotFoundError, match=r"it has: none\); `regraft backbones add efficientnet_lite0` makes one"):
        store.find("tiny")
    assert not store.root.exists()


def test_a_backbone_comes_back_as_it_was_described(store: BackboneStore) -> None:
    graph = tiny_backbone()

    added = store.add(graph, described(graph))

    assert store.list() == [added]
    assert store.find("tiny") == added
    assert added.published == PUBLISHED
    assert added.size_bytes == store.file(added.digest).stat().st_size
    assert (added.embedding_size, added.image) == (12, SPEC)
    assert store.read(added) == graph


def test_no_one_takes_the_backbones_for_a_model(store: BackboneStore) -> None:
    add(store)

    assert ModelStore(store.root.parent).names() == []


def test_the_backbone_of_a_version_has_the_digest_of_the_stored_one(store: BackboneStore, tmp_path: Path) -> None:
    added = add(store)
    models = ModelStore(tmp_path / "store")
    version = publish_tiny(models)

    artifact = read(models.folder("colours", version) / MODEL_FILE)

    assert artifact.card.backbone.digest == added.digest == backbone_digest(ungraft(artifact.model))
    assert artifact.card.embedding_key == added.embedding_key


def test_a_blank_head_on_it_makes_a_session_with_its_embeddings_and_its_digest(store: BackboneStore) -> None:
    graph = store.read(add(store))
    crops = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)

    blank = graft_blank(graph)
    (bare,), (grafted,) = (
        open_session(model.SerializeToString(), provider="cpu", threads=1).session.run([EMBEDDING], {IMAGE: crops})
        for model in (graph, blank)
    )

    assert backbone_digest(blank) == backbone_digest(graph)
    assert np.array_equal(bare, grafted)


def test_the_same_backbone_twice_is_there_once_as_it_was_first_described(store: BackboneStore) -> None:
    first = add(store, "tiny")
    again = add(store, "another name")

    assert again == first
    assert store.list() == [first]


def test_a_backbone_is_found_by_the_beginning_of_its_digest(store: BackboneStore) -> None:
    one, other = add(store, "one"), add(store, "other", 2.0)

    assert store.find(one.digest[:12]) == one
    assert store.find(other.digest) == other


@pytest.mark.parametrize("wanted", ["", "ti", "abc", "../../etc/passwd", "tiny\0", "0" * 64])
def test_what_is_no_name_and_no_digest_is_not_found(store: BackboneStore, wanted: str) -> None:
    add(store)

    with pytest.raises(NotFoundError, match="it has: tiny"):
        store.find(wanted)


def test_a_name_of_two_is_refused_with_the_digests_that_tell_them_apart(store: BackboneStore) -> None:
    digests = [add(store, "tiny", scale).digest[:12] for scale in (1.0, 2.0)]

    with pytest.raises(InvalidRequestError, match="there are 2") as refused:
        store.find("tiny")

    assert all(digest in str(refused.value) for digest in digests)


def test_weights_beside_a_version_are_no_part_of_its_backbone(store: BackboneStore) -> None:
    graph = tiny_backbone()
    state = KeptState(size_bytes=1, sha256="0" * 64)

    assert store.add(graph, described(graph, state=state)).backbone.state is None


def test_a_graph_that_is_not_the_described_one_is_not_stored(store: BackboneStore) -> None:
    with pytest.raises(ArtifactError, match="digest differs"):
        store.add(tiny_backbone(2.0), described(tiny_backbone()))
    with pytest.raises(ArtifactError, match="one input 'image'"):
        store.add(graft_blank(tiny_backbone()), described(tiny_backbone()))

    assert store.list() == []


@pytest.mark.parametrize("damage", ["cut", "another", "no graph", "gone"])
def test_a_damaged_backbone_is_not_read_and_adding_it_again_mends_it(store: BackboneStore, damage: str) -> None:
    added = add(store)
    path = store.file(added.digest)
    if damage == "gone":
        path.unlink()
    else:
        whole, other = path.read_bytes(), tiny_backbone(2.0).SerializeToString()
        path.write_bytes({"cut": whole[:-3], "another": other, "no graph": b"\xff" * 40}[damage])

    with pytest.raises((ArtifactError, NotFoundError)):
        store.read(added)

    assert store.read(add(store)) == tiny_backbone()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema_version": 99}, "reads up to 1: upgrade Regraft"),
        ({"backbone": {"name": "tiny", "weights": "none", "digest": "0" * 64}}, "of another backbone"),
        ({"image": {"crop_px": 8}}, "field 'image.resize' is missing"),
        ({"name": "\x1b[2J"}, "cannot be printed"),
        ({"size_bytes": "many"}, "field 'size_bytes'"),
        ({"surprise": 1}, "field 'surprise'"),
    ],
)
def test_one_that_cannot_be_read_is_left_out_and_harms_no_other(
    store: BackboneStore, caplog: pytest.LogCaptureFixture, change: dict[str, Any], complaint: str
) -> None:
    broken, sound = add(store), add(store, "sound", 2.0)
    fields = {**fields_of(store, broken.digest), **change}
    store.file(broken.digest).with_name(DESCRIPTION_FILE).write_text(json.dumps(fields))

    with caplog.at_level(logging.WARNING):
        assert store.list() == [sound]

    assert complaint in caplog.text


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "null", '{"schema_version": 1}', b"\xff\xfe\x00"])
def test_a_text_that_is_no_description_is_refused(text: str | bytes) -> None:
    with pytest.raises(ArtifactError, match="backbone description"):
        parse_description(text)


def test_other_folders_beside_the_backbones_are_nobodys(store: BackboneStore) -> None:
    added = add(store)
    for name in ("notes", "0" * 63, "G" * 64):
        (store.root / name).mkdir()
    (store.root / ("0" * 64)).write_text("a file")

    assert store.list() == [added]


def test_a_full_disk_stores_nothing(store: BackboneStore) -> None:
    with disk_full_after(100), pytest.raises(StorageError, match="cannot store the backbone 'tiny'"):
        add(store)

    assert store.list() == []
    assert [path.name for path in store.root.iterdir() if path.is_dir()] == []


def test_what_a_writer_that_was_killed_left_is_not_listed_and_goes_with_the_next_write(store: BackboneStore) -> None:
    add(store)
    left = store.root / ".staging-0123"
    shutil.copytree(store.file(store.list()[0].digest).parent, left)

    assert len(store.list()) == 1
    add(store, "other", 2.0)
    assert not left.exists()


def test_many_who_add_the_same_at_once_all_succeed_and_it_is_there_once(store: BackboneStore) -> None:
    start = threading.Barrier(4)

    def one(_: int) -> StoredBackbone:
        start.wait()
        return add(BackboneStore(store.root.parent))

    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(one, range(4)))

    assert len({each.model_dump_json() for each in added}) == 1
    assert store.list() == added[:1]
    assert sorted(path.name for path in store.root.iterdir()) == [".lock", added[0].digest]


def test_a_backbone_is_removed_unless_a_model_began_with_it(store: BackboneStore) -> None:
    added = add(store)

    with pytest.raises(PreconditionError, match="'flowers', 'fruits' began with: delete them first"):
        store.remove(added, used_by=["flowers", "fruits"])
    assert store.list() == [added]

    store.remove(added)
    assert store.list() == []
    assert [path.name for path in store.root.iterdir()] == [".lock"]
    with pytest.raises(NotFoundError, match="is gone"):
        store.remove(added)


@pytest.mark.parametrize("digest", ["", "..", "../colours/1", "A" * 64, "0" * 63, "0" * 64 + "/x"])
def test_a_digest_never_leads_out_of_the_folder(store: BackboneStore, digest: str) -> None:
    with pytest.raises(InvalidRequestError, match="backbone digest"):
        store.file(digest)


def test_the_folder_of_a_backbone_holds_its_graph_and_its_description(store: BackboneStore) -> None:
    added = add(store)

    assert sorted(path.name for path in (store.root / added.digest).iterdir()) == [DESCRIPTION_FILE, GRAPH_FILE]
    assert fields_of(store, added.digest)["published"]["licence"] == "CC0-1.0"
