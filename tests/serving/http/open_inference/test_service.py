import json
from base64 import b64encode
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.live_server import LiveServer
from tests.serving.http.http_client import fetch
from tests.tiny import picture


@pytest.fixture
def client(shared: LiveServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{shared.ready.http_port}") as opened:
        yield opened


def image(*labels: str, binary: bool = True) -> triton.InferInput:
    given = triton.InferInput("image", [len(labels)], "BYTES")
    given.set_data_from_numpy(np.array([picture(label) for label in labels], np.object_), binary_data=binary)
    return given


def test_tritons_client_finds_health_metadata_configuration_and_index(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("colours")
    assert client.is_model_ready("colours", "1")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "regraft"
    metadata = client.get_model_metadata("colours")
    assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}]
    assert client.get_model_config("colours", "1")["max_batch_size"] == 128
    assert [model["state"] for model in client.get_model_repository_index()] == ["READY"]


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_infers_with_bytes_and_with_json_in_the_answer(
    client: triton.InferenceServerClient, *, binary: bool
) -> None:
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")]
    result = client.infer("colours", [image("red", "blue")], outputs=wanted, request_id="mine")
    labels = [each.decode() if isinstance(each, bytes) else each for each in result.as_numpy("label").ravel()]
    assert labels == ["red", "blue"]
    assert result.as_numpy("probabilities").shape == (2, 3)
    assert result.get_response()["id"] == "mine"
    everything = client.infer("colours", [image("green")])
    assert everything.as_numpy("novelty").shape == (1, 1)


def test_tritons_client_asks_for_classification_and_for_statistics(client: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
    best = client.infer("colours", [image("red")], outputs=wanted).as_numpy("probabilities")
    assert best[0][0].endswith(b":0:red")
    (statistics,) = client.get_inference_statistics("colours")["model_stats"]
    assert statistics["inference_count"] >= 1
    assert statistics["inference_stats"]["success"]["ns"] > 0


def test_pictures_in_json_are_base64_and_crops_are_numbers(shared: LiveServer) -> None:
    def infer(tensor: object) -> object:
        body = json.dumps({"inputs": [tensor]}).encode()
        return fetch(shared, "POST", "/v2/models/colours/infer", body, {"content-type": "application/json"}).json

    encoded = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [b64encode(picture("red")).decode()]}
    crop = np.broadcast_to(np.array([40, 40, 200]), (1, 8, 8, 3)).tolist()
    as_numbers = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": crop}
    for tensor, label in ((encoded, "red"), (as_numbers, "blue")):
        answered = infer(tensor)
        assert isinstance(answered, dict)
        assert {output["name"]: output["data"] for output in answered["outputs"]}["label"] == [label]


def test_an_error_is_told_as_tritons_client_reads_it(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="nobody"):
        client.infer("nobody", [image("red")])
    with pytest.raises(InferenceServerException, match="colors"):
        client.infer("colours", [triton.InferInput("colors", [1], "BYTES")])
