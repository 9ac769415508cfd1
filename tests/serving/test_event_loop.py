"""The event loop's thread, which uses no disk and no database.

All callers wait on it.
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest

from regraft.oip import inference_pb2
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobState
from regraft.stores.models import REPORT_FILE, ModelStore
from regraft.v1 import (
    classifier_pb2,
    examples_pb2,
    exports_pb2,
    models_pb2,
    pictures_pb2,
    reports_pb2,
    retraining_pb2,
)
from serving.rpc.open_inference.tensors import join
from tests.grpc_loop import grpc_loop
from tests.live_server import LiveServer
from tests.serving.disk import disk_uses_of_the_loop
from tests.serving.rpc.rpcs import outcome_of, rpcs_of
from tests.tiny import picture, publish_tiny
from tests.waiting import PATIENCE_S, wait_until

RED = picture("red", 7)
SHA256 = sha256(RED).hexdigest()
KEY = "once"
ENDS = {
    "/regraft.v1.Exports/Export": grpc.StatusCode.FAILED_PRECONDITION,
    "/regraft.v1.Models/CreateModel": grpc.StatusCode.NOT_FOUND,
    "/regraft.v1.Retraining/Train": grpc.StatusCode.FAILED_PRECONDITION,
}
"""Of what nothing here could do: pictures are not kept, and there is no backbone."""


@pytest.fixture
def job(store: ModelStore) -> str:
    """The id of a job that is over, beside an example in quarantine."""
    examples = ExamplesStore(store.root / ".examples")
    examples.add("colours", RED, "red")
    examples.labels.quarantine("colours", {SHA256: ("red", "a test")})
    job = examples.jobs.create("colours", {}, "ada", KEY)
    examples.jobs.finish(job.id, JobState.FAILED, "a test")
    examples.close()
    return job.id


@pytest.fixture
def live(store: ModelStore, job: str) -> Iterator[LiveServer]:  # noqa: ARG001 - what the server finds when it starts
    publish_tiny(store, sharpness=5.0, promote=False)
    (store.folder("colours", 1) / REPORT_FILE).write_text("<p>a report")
    with LiveServer(store, keep_requests=1.0, bake=3600.0) as live:
        yield live


def test_no_rpc_uses_a_disk_on_the_event_loop_whether_its_model_exists_or_not(live: LiveServer, job: str) -> None:
    walk = list(every_request(job))
    with grpc.insecure_channel(live.target) as channel, disk_uses_of_the_loop() as uses:
        for rpc, request in walk:
            code = outcome_of(channel, rpc, request=request.SerializeToString())
            assert (rpc, code, uses) == (rpc, ENDS.get(rpc, grpc.StatusCode.OK), [])
        for rpc, request in walk:
            for field in {"name", "model_name", "id", "sha256"} & {*request.DESCRIPTOR.fields_by_name}:
                changed = type(request)()
                changed.CopyFrom(request)
                if request.DESCRIPTOR.fields_by_name[field].is_repeated:
                    getattr(changed, field)[:] = ["nobody"]
                else:
                    setattr(changed, field, "nobody")
                outcome_of(channel, rpc, request=changed.SerializeToString())
                assert (rpc, field, uses) == (rpc, field, [])
        assert {rpc for rpc, _ in walk} == {*rpcs_of(channel)}


def test_nor_does_what_is_done_in_the_background(store: ModelStore, tmp_path: Path) -> None:
    callers = tmp_path / "callers"
    callers.write_text("")
    with LiveServer(store, callers=callers, keep_requests=1.0, bake=3600.0, retrain_every=3600.0) as live:
        with disk_uses_of_the_loop() as uses:
            publish_tiny(store, sharpness=5.0)
            callers.write_text(f"ada operate sha256:{64 * '0'}")
            wait_until(lambda: live.server.models.get("colours").version == 2)
        with disk_uses_of_the_loop() as uses_at_the_end:
            live.stop().result(PATIENCE_S)
        assert uses + uses_at_the_end == []


def test_the_watch_sees_what_it_shall() -> None:
    async def look() -> None:
        Path("/").stat()  # noqa: ASYNC240 - which is what nobody may

    with disk_uses_of_the_loop() as uses:
        grpc_loop().run(look())

    assert [use.split()[0] for use in uses] == ["stat"]


def every_request(job: str) -> Iterator[tuple[str, Any]]:
    """Yield each RPC with a request that succeeds, once those before it were answered."""
    whose = {"name": "colours", "sha256": SHA256}
    classify = classifier_pb2.ClassifyRequest(image=RED, name="colours")
    yield "/regraft.v1.Classifier/Classify", classify
    yield "/regraft.v1.Classifier/ClassifyStream", classifier_pb2.ClassifyStreamRequest(id="1", request=classify)
    yield "/regraft.v1.Classifier/BatchClassify", classifier_pb2.BatchClassifyRequest(requests=[classify])

    service = "/inference.GRPCInferenceService/"
    for method in ("ServerLive", "ServerReady", "ServerMetadata", "RepositoryIndex"):
        yield f"{service}{method}", getattr(inference_pb2, f"{method}Request")()
    for method in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"):
        yield f"{service}{method}", getattr(inference_pb2, f"{method}Request")(name="colours")
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    infer = inference_pb2.ModelInferRequest(model_name="colours", inputs=[tensor], raw_input_contents=[join([RED])])
    yield f"{service}ModelInfer", infer
    yield f"{service}ModelStreamInfer", infer

    service = "/regraft.v1.Examples/"
    yield f"{service}ListExamples", examples_pb2.ListExamplesRequest(name="colours", with_images=True, quarantined=True)
    yield f"{service}GetExample", examples_pb2.GetExampleRequest(**whose, with_image=True)
    yield f"{service}ReleaseExample", examples_pb2.ReleaseExampleRequest(**whose)
    yield f"{service}RelabelExample", examples_pb2.RelabelExampleRequest(**whose, label="green")
    yield f"{service}RemoveExample", examples_pb2.RemoveExampleRequest(**whose)
    yield from requests_of_many(service)
    yield f"{service}Suggest", examples_pb2.SuggestRequest(name="colours", with_images=True)

    yield f"{service}GetLearningCurve", examples_pb2.GetLearningCurveRequest(name="colours")
    yield f"{service}Neighbours", examples_pb2.NeighboursRequest(name="colours", image=RED)
    yield f"{service}Map", examples_pb2.MapRequest(name="colours")
    yield f"{service}Explain", examples_pb2.ExplainRequest(name="colours", sha256=SHA256)

    yield from requests_without_labels("/regraft.v1.Pictures/")

    service = "/regraft.v1.Retraining/"
    add = retraining_pb2.AddExamplesRequest(name="colours", image=RED, label="red")
    yield f"{service}AddExamples", add
    yield f"{service}BatchAddExamples", retraining_pb2.BatchAddExamplesRequest(requests=[add])
    yield f"{service}Preview", retraining_pb2.PreviewRequest(name="colours")
    yield f"{service}Retrain", retraining_pb2.RetrainRequest(name="colours", idempotency_key=KEY)
    yield f"{service}GetRetrainJob", retraining_pb2.GetRetrainJobRequest(id=job)
    yield f"{service}WatchRetrainJob", retraining_pb2.WatchRetrainJobRequest(id=job)
    yield f"{service}ListRetrainJobs", retraining_pb2.ListRetrainJobsRequest(name="colours")
    yield f"{service}CancelRetrainJob", retraining_pb2.CancelRetrainJobRequest(id=job)

    service = "/regraft.v1.Models/"
    yield f"{service}ListModels", models_pb2.ListModelsRequest()
    yield f"{service}GetModel", models_pb2.GetModelRequest(name="colours")
    yield f"{service}Promote", models_pb2.PromoteRequest(name="colours", version=2)
    yield f"{service}Rollback", models_pb2.RollbackRequest(name="colours")
    yield f"{service}Shadow", models_pb2.ShadowRequest(name="colours", version=2)

    yield "/regraft.v1.Exports/Export", exports_pb2.ExportRequest(name="colours")
    service = "/regraft.v1.Reports/"
    yield f"{service}GetReport", reports_pb2.GetReportRequest(name="colours")
    yield f"{service}GetConfusion", reports_pb2.GetConfusionRequest(name="colours")
    yield from requests_for_whole_models("/regraft.v1.Models/")


def requests_for_whole_models(service: str) -> Iterator[tuple[str, Any]]:
    """Yield the RPCs by which a model comes and goes, likewise."""
    yield f"{service}ListBackbones", models_pb2.ListBackbonesRequest()
    yield f"{service}CreateModel", models_pb2.CreateModelRequest(name="cats", backbone="none")
    yield "/regraft.v1.Retraining/Train", retraining_pb2.TrainRequest(name="colours", backbone="none")
    yield f"{service}DeleteModel", models_pb2.DeleteModelRequest(name="colours")
    yield f"{service}RestoreModel", models_pb2.RestoreModelRequest(name="colours")


def requests_of_many(service: str) -> Iterator[tuple[str, Any]]:
    """Yield the RPCs on many examples, likewise."""
    yield f"{service}RestoreExamples", examples_pb2.RestoreExamplesRequest(name="colours", sha256=[SHA256])
    relabel = examples_pb2.RelabelExamplesRequest(name="colours", sha256=[SHA256], label="red")
    yield f"{service}RelabelExamples", relabel
    yield f"{service}GetThumbnails", examples_pb2.GetThumbnailsRequest(name="colours", sha256=[SHA256])
    yield f"{service}RemoveExamples", examples_pb2.RemoveExamplesRequest(name="colours", sha256=[SHA256])
    newest = examples_pb2.ListExamplesRequest.ORDER_NEWEST
    yield f"{service}ListExamples", examples_pb2.ListExamplesRequest(order=newest, with_predictions=True)
    rename = examples_pb2.RenameLabelRequest(name="colours", label="green", new_label="lime")
    yield f"{service}RenameLabel", rename
    yield f"{service}RemoveLabel", examples_pb2.RemoveLabelRequest(name="colours", label="lime")


def requests_without_labels(service: str) -> Iterator[tuple[str, Any]]:
    """Yield the RPCs on pictures without labels, likewise."""
    add = pictures_pb2.AddPicturesRequest(name="colours", image=picture("grey"))
    yield f"{service}AddPictures", add
    yield f"{service}BatchAddPictures", pictures_pb2.BatchAddPicturesRequest(requests=[add])
    yield f"{service}ListPictures", pictures_pb2.ListPicturesRequest(name="colours", with_images=True)
    added = [sha256(picture("grey")).hexdigest()]
    yield f"{service}RemovePictures", pictures_pb2.RemovePicturesRequest(name="colours", sha256=added)
