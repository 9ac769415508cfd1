import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import onnxruntime
import pytest

from regraft.client.client import Client, RemoteError
from regraft.stores.examples import ExamplesStore
from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.serving.conftest import AuditLines
from tests.tiny import picture
from tests.waiting import wait_until

PICTURES = 30
"""Of each colour; `publish_tiny` has as many."""


@pytest.fixture
def kept(store: ModelStore) -> Iterator[LiveServer]:
    """A server whose examples have the pictures of its version's validation."""
    with closing(ExamplesStore(store.root / ".examples")) as examples:
        for label in ("red", "green", "blue"):
            for number in range(PICTURES):
                examples.add("colours", picture(label, number), label)
    with LiveServer(store) as live:
        yield live


def folders() -> set[Path]:
    return {*Path(tempfile.gettempdir()).glob("regraft-export-*")}


def test_an_export_tells_how_far_it_is_then_its_figures_then_comes_as_a_zip(
    kept: LiveServer, audit_lines: AuditLines
) -> None:
    parts = list(kept.client.export(to="onnx"))

    kinds = [part.WhichOneof("part") for part in parts]
    assert kinds == sorted(kinds, key=["progress", "result", "data"].index)
    assert {part.progress.stage for part in parts if part.HasField("progress")} >= {"scan", "validate"}
    (result,) = [part.result for part in parts if part.HasField("result")]
    zipped = b"".join(part.data for part in parts)
    assert (result.version, result.size_bytes) == (1, len(zipped))
    with zipfile.ZipFile(io.BytesIO(zipped)) as files:
        assert {"README.md", "export.json", "model.onnx"} <= {*files.namelist()}
        assert json.loads(files.read("export.json"))["proof"] == json.loads(result.export_json)["proof"]
        session = onnxruntime.InferenceSession(files.read("model.onnx"), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()][:1] == ["image"]
    assert json.loads(result.export_json)["proof"]["agreement"] == 1.0
    wait_until(audit_lines)
    assert audit_lines()[-1]["effect"] == {"model": "colours", "version": 1, "format": "onnx"}
    assert folders() == set()


def test_who_leaves_ends_the_export_and_nothing_is_left_behind(kept: LiveServer) -> None:
    parts = kept.client.export(to="onnx")
    assert next(parts).HasField("progress")
    assert len(folders()) == 1

    parts.close()  # type: ignore[attr-defined]  # it is a generator

    wait_until(lambda: folders() == set())
    assert kept.client.classify(picture("red")).predictions[0].label == "red"


def test_what_cannot_be_exported_says_why(shared: LiveServer, client: Client) -> None:
    with pytest.raises(RemoteError) as failure:
        list(client.export())
    assert (failure.value.code, failure.value.reason) == ("FAILED_PRECONDITION", "DATASET")
    with pytest.raises(RemoteError, match="cpu: 'arm'; only int8 depends on the CPU") as failure:
        list(shared.client.export(cpu="arm"))
    assert failure.value.code == "INVALID_ARGUMENT"
    with pytest.raises(RemoteError) as failure:
        list(shared.client.export(7))
    assert failure.value.code == "NOT_FOUND"
