import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from regraft.image.decode import decode_crop
from regraft.oip import inference_pb2 as pb
from regraft.oip import inference_pb2_grpc as pb_grpc
from regraft.stores.models import ModelStore
from serving.rpc.open_inference.tensors import join, split
from tests import REPOSITORY
from tests.live_server import LiveServer
from tests.tiny import SPEC, picture

LABELS = ("red", "green", "blue")


@pytest.fixture
def oip(shared: LiveServer) -> Iterator[pb_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(shared.target) as channel:
        yield pb_grpc.GRPCInferenceServiceStub(channel)


def request(*pictures: bytes, **fields: Any) -> pb.ModelInferRequest:  # noqa: ANN401 - fields of the message
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[len(pictures)])
    return pb.ModelInferRequest(inputs=[tensor], raw_input_contents=[join(pictures)], **fields)


def wanted(name: str, **parameters: int) -> pb.ModelInferRequest.InferRequestedOutputTensor:
    values = {key: pb.InferParameter(int64_param=value) for key, value in parameters.items()}
    return pb.ModelInferRequest.InferRequestedOutputTensor(name=name, parameters=values)


def outputs_of(response: pb.ModelInferResponse) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.datatype == "FP32":
            found[output.name] = np.frombuffer(raw, np.float32).reshape(output.shape)
        else:
            found[output.name] = np.array([text.decode() for text in split(raw)]).reshape(output.shape)
    return found


def status_of(failure: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[str, str]:
    call = failure.value
    assert isinstance(call, grpc.Call)  # a failed call is an error and a call
    return call.code().name, call.details() or ""


def test_the_real_tritonclient_is_served(shared: LiveServer, tmp_path: Path) -> None:
    files = []
    for label in LABELS:
        files.append(tmp_path / f"{label}.png")
        files[-1].write_bytes(picture(label))

    command = [sys.executable, "-m", "tests.serving.rpc.open_inference.triton_client", shared.target, *map(str, files)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["live"]
    assert found["ready"]
    assert found["model_ready"] == [True, False]
    assert found["metadata"]["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": ["-1", "1"]}]
    assert found["config"]["max_batch_size"] == 128
    assert set(found["extensions"]) == {"classification", "model_configuration", "parameters", "statistics"}
    assert {"name": "colours", "version": "1", "state": "READY"} in found["index"]
    answer = found["answer"]
    assert (answer["id"], answer["version"], tuple(answer["labels"])) == ("seven", "1", LABELS)
    assert np.sum(answer["probabilities"], axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert answer["novelty"] == [3, 1]
    assert [row[0].split(":")[1:] for row in found["top_two"]] == [[str(i), label] for i, label in enumerate(LABELS)]
    assert [len(row) for row in found["top_two"]] == [2, 2, 2]
    red, rubbish, *others = found["stream"]
    assert (red, *others) == LABELS
    assert "image 0: not a picture" in rubbish
    (statistics,) = found["statistics"]
    assert int(statistics["inference_count"]) >= 9
    assert int(statistics["inference_stats"]["success"]["count"]) >= 5
    assert int(statistics["inference_stats"]["fail"]["count"]) >= 1


def test_answers_are_those_of_our_own_protocol(oip: pb_grpc.GRPCInferenceServiceStub, shared: LiveServer) -> None:
    response = oip.ModelInfer(request(picture("green"), picture("blue"), model_name="colours", id="a"))

    found = outputs_of(response)
    assert response.id == "a"
    assert list(found) == ["probabilities", "label", "novelty"]
    for row, label in enumerate(("green", "blue")):
        ours = shared.client.classify(picture(label))
        best = {prediction.label: prediction.probability for prediction in ours.predictions}
        assert found["label"][row, 0] == label
        assert dict(zip(LABELS, found["probabilities"][row], strict=True)) == pytest.approx(best, abs=1e-6)
        assert found["novelty"][row, 0] == pytest.approx(ours.novelty.score, abs=1e-6)


def test_crops_are_answered_like_the_pictures_that_they_were_cut_from(oip: pb_grpc.GRPCInferenceServiceStub) -> None:
    pictures = [picture("red"), picture("blue", 3)]
    crops = np.stack([decode_crop(data, SPEC) for data in pictures])
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=crops.shape)

    cut = oip.ModelInfer(pb.ModelInferRequest(inputs=[tensor], raw_input_contents=[crops.tobytes()]))
    whole = oip.ModelInfer(request(*pictures))

    assert cut.raw_output_contents == whole.raw_output_contents


def test_only_the_outputs_that_were_asked_for_are_answered_in_that_order(oip: pb_grpc.GRPCInferenceServiceStub) -> None:
    response = oip.ModelInfer(
        request(picture("red"), outputs=[wanted("embedding"), wanted("probabilities", classification=99)])
    )

    found = outputs_of(response)
    assert list(found) == ["embedding", "probabilities"]
    assert found["probabilities"].shape == (1, 3)  # never more labels than there are
    assert found["probabilities"][0, 0].endswith(":0:red")


def test_unknown_parameters_are_tolerated_and_perf_analyzers_is_answered(oip: pb_grpc.GRPCInferenceServiceStub) -> None:
    asked = request(picture("red"))
    asked.parameters["priority"].uint64_param = 3
    asked.parameters["triton_enable_empty_final_response"].bool_param = True

    assert oip.ModelInfer(asked).parameters["triton_final_response"].bool_param


OTHER_SIZE = pb.ModelInferRequest(
    inputs=[pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, 2, 2, 3])],
    raw_input_contents=[bytes(12)],
)
LATE = request(picture("red"))
LATE.parameters["timeout"].int64_param = 1
# Columns: the request, the status, and what the text says.
BAD = {
    "rubbish among pictures": (request(picture("red"), b"rubbish"), "INVALID_ARGUMENT", "image 1: not a picture"),
    "a crop of another size": (OTHER_SIZE, "INVALID_ARGUMENT", "image 0: a crop of 2 x 2 px; colours takes 8"),
    "no such model": (request(picture("red"), model_name="shapes"), "NOT_FOUND", "there is no model 'shapes'"),
    "no such version": (request(picture("red"), model_version="7"), "NOT_FOUND", "version 7 of 'colours' does not"),
    "a version that is none": (request(picture("red"), model_version="new"), "NOT_FOUND", "'new' is no version"),
    "no such output": (request(picture("red"), outputs=[wanted("mask")]), "INVALID_ARGUMENT", "there is no 'mask'"),
    "classes of an embedding": (
        request(picture("red"), outputs=[wanted("embedding", classification=1)]),
        "INVALID_ARGUMENT",
        "of 'probabilities'",
    ),
    "a timeout of a microsecond": (LATE, "DEADLINE_EXCEEDED", "the deadline passed"),
}


@pytest.mark.parametrize("which", BAD)
def test_a_bad_request_gets_the_status_that_says_whose_fault_it_is(
    oip: pb_grpc.GRPCInferenceServiceStub, which: str
) -> None:
    bad, status, text = BAD[which]

    with pytest.raises(grpc.RpcError) as failure:
        oip.ModelInfer(bad)

    code, details = status_of(failure)
    assert code == status
    assert text in details


def test_statistics_count_pictures_and_requests(live: LiveServer) -> None:
    with grpc.insecure_channel(live.target) as channel:
        oip = pb_grpc.GRPCInferenceServiceStub(channel)
        oip.ModelInfer(request(picture("red"), picture("green")))
        live.client.classify(picture("blue"))
        with pytest.raises(grpc.RpcError):
            oip.ModelInfer(request(b"rubbish"))
        (found,) = oip.ModelStatistics(pb.ModelStatisticsRequest()).model_stats

    counted = found.inference_stats
    assert (found.inference_count, found.execution_count) == (3, 3)  # on a CPU each picture runs alone
    assert (counted.success.count, counted.fail.count, counted.compute_infer.count) == (2, 1, 3)
    assert counted.success.ns >= counted.compute_infer.ns / 3 > 0
    assert found.last_inference > 0


def test_a_server_without_a_model_lives_but_is_not_ready(empty_store: ModelStore) -> None:
    with LiveServer(empty_store) as live, grpc.insecure_channel(live.target) as channel:
        oip = pb_grpc.GRPCInferenceServiceStub(channel)

        assert oip.ServerLive(pb.ServerLiveRequest()).live
        assert not oip.ServerReady(pb.ServerReadyRequest()).ready
        assert not oip.ModelReady(pb.ModelReadyRequest(name="colours")).ready
        assert not oip.RepositoryIndex(pb.RepositoryIndexRequest()).models
