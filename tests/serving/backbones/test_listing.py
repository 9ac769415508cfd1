"""ListBackbones of a real server."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from regraft.files import cache_folder
from regraft.machine import cpu_budget
from regraft.model.session import require_onnxruntime
from regraft.stores.backbone_file import export_backbone
from regraft.stores.backbones import BackboneStore
from regraft.stores.models import ModelStore
from regraft.v1 import models_pb2 as pb
from regraft.v1 import models_pb2_grpc as pb_grpc
from serving.inference.execution_plan import Point, plan_file, write_points
from tests.live_server import LiveServer
from tests.regraft.stores.test_backbones import add
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose store has three backbones and no model.

    The first backbone was measured here before.
    """
    store = ModelStore(tmp_path_factory.mktemp("backbones") / "store")
    first = add(BackboneStore(store.root), "efficientnet_lite0", 2.0)
    for name, scale in (("tiny", 1.0), ("flowers:3", 3.0)):
        add(BackboneStore(store.root), name, scale)
    plan = plan_file(cache_folder() / "plans", first.digest, "cpu", cpu_budget(), require_onnxruntime().__version__)
    write_points(plan, [Point(cpu_budget(), 1, 1, 80.0, 12.5)])
    with LiveServer(store) as server:
        yield server


def test_what_a_model_can_begin_with_is_listed_with_what_is_known_of_it(live: LiveServer) -> None:
    listed = live.client.list_backbones()

    assert [each.name for each in listed] == ["efficientnet_lite0", "flowers:3", "tiny"]
    assert [each.is_default for each in listed] == [True, False, False]
    tiny = listed[2]
    assert len(tiny.digest) == 64
    assert (tiny.precision, tiny.embedding_size, tiny.input_px) == ("fp32", 12, 8)
    assert (tiny.weights, tiny.weights_source, tiny.licence) == ("none", "example.org", "CC0-1.0")
    assert (tiny.imagenet_top1, tiny.imagenet_top1_source) == (0.5, "a paper")
    assert tiny.size_bytes > 300
    assert tiny.is_here
    assert tiny.added_at.ToSeconds() > 0


def test_the_time_of_a_picture_is_told_once_it_is_known(live: LiveServer) -> None:
    wait_until(lambda: live.client.list_backbones()[0].HasField("picture_ms"))

    assert live.client.list_backbones()[0].picture_ms == 12.5


def test_backbones_come_in_pages_and_a_token_belongs_to_its_query(live: LiveServer) -> None:
    with grpc.insecure_channel(live.target) as channel:
        rpc = pb_grpc.ModelsStub(channel).ListBackbones
        first = rpc(pb.ListBackbonesRequest(page_size=2))
        second = rpc(pb.ListBackbonesRequest(page_size=2, page_token=first.next_page_token))
        with pytest.raises(grpc.RpcError) as failure:
            rpc(pb.ListBackbonesRequest(page_token=first.next_page_token, show_addable=True))

    assert [len(page.backbones) for page in (first, second)] == [2, 1]
    assert second.next_page_token == first.advice == ""
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_files_of_a_folder_are_brought_at_the_start(empty_store: ModelStore, tmp_path: Path) -> None:
    elsewhere = BackboneStore(tmp_path / "elsewhere")
    add(elsewhere, "brought")
    (tmp_path / "files").mkdir()
    export_backbone(elsewhere, "brought", tmp_path / "files/any-name.onnx")

    with LiveServer(empty_store, backbones=tmp_path / "files") as live:
        wait_until(live.client.list_backbones)

        assert [each.name for each in live.client.list_backbones()] == ["brought"]


def test_a_store_without_backbones_says_how_to_get_one_and_one_that_comes_is_listed(empty_store: ModelStore) -> None:
    with LiveServer(empty_store) as live, grpc.insecure_channel(live.target) as channel:
        rpc = pb_grpc.ModelsStub(channel).ListBackbones
        before = rpc(pb.ListBackbonesRequest())
        add(BackboneStore(empty_store.root))
        after = rpc(pb.ListBackbonesRequest())

    assert not before.backbones
    assert before.advice.startswith("`regraft backbones add efficientnet_lite0` makes one where torch is installed")
    assert [each.name for each in after.backbones] == ["tiny"]
    assert after.advice == ""
