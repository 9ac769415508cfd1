"""The service of the Open Inference Protocol, over `serving.inference.classifier`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version as version_of
from typing import Any, Final

from regraft.errors import InvalidRequestError, NotFoundError, RegraftError
from regraft.oip import inference_pb2 as pb
from regraft.oip import inference_pb2_grpc as pb_grpc
from serving.inference.classifier import Classifier, Inference
from serving.inference.models_in_memory import ServedModel
from serving.inference.registry import ModelRegistry
from serving.rpc.context import Context, deadline_of
from serving.rpc.open_inference.tensors import IMAGE, MAX_PICTURES, add_floats, add_texts, pictures_of
from serving.rpc.status import status_of
from serving.rpc.streams import answers
from serving.telemetry.call import may_name
from serving.telemetry.metrics import Metrics
from serving.telemetry.statistics import Distribution, Duration, Statistics

_EXTENSIONS: Final = ("classification", "model_configuration", "parameters", "statistics")
_PLATFORM: Final = "onnxruntime_onnx"
_REGRAFT: Final = version_of("regraft")
_DEFAULT_OUTPUTS: Final = ("probabilities", "label", "novelty")
_OUTPUTS: Final = (*_DEFAULT_OUTPUTS, "embedding")
_CLASSIFICATION: Final = "classification"
_MAX_VERSION_DIGITS: Final = 18  # digits; Python reads no more than 4,300
_FINAL_ASKED: Final = "triton_enable_empty_final_response"
_FINAL: Final = "triton_final_response"


class InferenceService(pb_grpc.GRPCInferenceServiceServicer):
    """The servicer; every rule is in `serving.inference.classifier`, the tensors' in `tensors`."""

    def __init__(self, models: ModelRegistry, classifier: Classifier, metrics: Metrics) -> None:
        """Classify by ``classifier``, and describe ``models`` and their ``metrics``."""
        self._models = models
        self._metrics = metrics
        self._classifier = classifier

    async def ServerLive(self, _request: pb.ServerLiveRequest, _context: Context) -> pb.ServerLiveResponse:
        """Report that the process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _request: pb.ServerReadyRequest, _context: Context) -> pb.ServerReadyResponse:
        """Report that some model answers."""
        return pb.ServerReadyResponse(ready=bool(self._models.names()))

    async def ModelReady(self, request: pb.ModelReadyRequest, _context: Context) -> pb.ModelReadyResponse:
        """Report that this model, and this version, answers."""
        try:
            self._served(request.name, request.version)
        except RegraftError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, _request: pb.ServerMetadataRequest, _context: Context) -> pb.ServerMetadataResponse:
        """Return the server's name and its extensions of the protocol."""
        return pb.ServerMetadataResponse(name="regraft", version=_REGRAFT, extensions=_EXTENSIONS)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, _context: Context) -> pb.ModelMetadataResponse:
        """Describe a model's tensors."""
        served = self._served(request.name, request.version)
        tensor = pb.ModelMetadataResponse.TensorMetadata
        texts, floats = _dims(served)
        return pb.ModelMetadataResponse(
            name=served.name,
            versions=[str(served.version)],
            platform=_PLATFORM,
            inputs=[tensor(name=IMAGE, datatype="BYTES", shape=[-1, 1])],
            outputs=[
                *(tensor(name=name, datatype="FP32", shape=[-1, *dims]) for name, dims in floats.items()),
                *(tensor(name=name, datatype="BYTES", shape=[-1, *dims]) for name, dims in texts.items()),
            ],
        )

    async def ModelConfig(self, request: pb.ModelConfigRequest, _context: Context) -> pb.ModelConfigResponse:
        """Return the model's part of a Triton configuration."""
        served = self._served(request.name, request.version)
        texts, floats = _dims(served)
        return pb.ModelConfigResponse(
            config=pb.ModelConfig(
                name=served.name,
                platform=_PLATFORM,
                backend="onnxruntime",
                max_batch_size=MAX_PICTURES,
                input=[pb.ModelInput(name=IMAGE, data_type=pb.TYPE_STRING, dims=[1])],
                output=[
                    *(pb.ModelOutput(name=name, data_type=pb.TYPE_FP32, dims=dims) for name, dims in floats.items()),
                    *(pb.ModelOutput(name=name, data_type=pb.TYPE_STRING, dims=dims) for name, dims in texts.items()),
                ],
                dynamic_batching=pb.ModelDynamicBatching(),
            )
        )

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Classify the pictures of one request."""
        return await self._infer(request, deadline_of(context))

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Classify a stream of requests: several at once, answers in order."""
        deadline_s = deadline_of(context)

        async def outcome(
            request: pb.ModelInferRequest, on_admitted: Callable[[], None]
        ) -> pb.ModelStreamInferResponse:
            try:
                inferred = await self._infer(request, deadline_s, on_admitted)
                return pb.ModelStreamInferResponse(infer_response=inferred)
            except RegraftError as error:
                _, text = status_of(error)
                identity = pb.ModelInferResponse(id=request.id, model_name=request.model_name)
                return pb.ModelStreamInferResponse(error_message=text, infer_response=identity)

        async for response in answers(requests, outcome):
            yield response

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, _context: Context
    ) -> pb.ModelStatisticsResponse:
        """Return the statistics of one model, or of all."""
        names = [request.name] if request.name else [*filter(may_name, self._models.names())]
        served = [self._served(name, request.version) for name in names]
        return pb.ModelStatisticsResponse(
            model_stats=[_statistics(model, self._metrics.of(model.name)) for model in served]
        )

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, _context: Context
    ) -> pb.RepositoryIndexResponse:
        """List the models of the store, with their problems."""
        index = pb.RepositoryIndexResponse()
        for name in sorted(filter(may_name, {*self._models.names(), *self._models.stored.names()})):
            if name in self._models.names():
                index.models.add(name=name, version=str(self._models.get(name).version), state="READY")
            elif not request.ready:
                reason = self._models.problem(name) or "it has no champion"
                index.models.add(name=name, state="UNAVAILABLE", reason=reason)
        return index

    def _served(self, name: str, wanted: str) -> ServedModel:
        served = self._models.get(name)
        served.check_version(_version(wanted))
        return served

    async def _infer(
        self, request: pb.ModelInferRequest, deadline_s: float | None, on_admitted: Callable[[], None] | None = None
    ) -> pb.ModelInferResponse:
        counts = {output.name: _class_count(output.name, output.parameters) for output in request.outputs}
        inference = await self._classifier.infer(
            pictures_of(request),
            name=request.model_name,
            version=_version(request.model_version),
            deadline_s=_sooner(deadline_s, request.parameters["timeout"].int64_param),
            on_admitted=on_admitted,
        )
        served = inference.served
        response = pb.ModelInferResponse(id=request.id, model_name=served.name, model_version=str(served.version))
        for name, count in (counts or dict.fromkeys(_DEFAULT_OUTPUTS, 0)).items():
            _add_output(response, name, count, inference)
        if request.parameters[_FINAL_ASKED].bool_param:
            response.parameters[_FINAL].bool_param = True
        return response


def _dims(served: ServedModel) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return the dimensions, but the batch's, of outputs of texts and of floats."""
    classes, width = served.head.weight.shape
    return {"label": [1]}, {"probabilities": [classes], "embedding": [width], "novelty": [1]}


def _version(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_VERSION_DIGITS:
        raise NotFoundError(f"model_version: {text!r} is no version; they are numbers")
    return int(text)


def _sooner(deadline_s: float | None, timeout_us: int) -> float | None:
    if timeout_us <= 0:
        return deadline_s
    then_s = asyncio.get_running_loop().time() + timeout_us / 1e6
    return then_s if deadline_s is None else min(deadline_s, then_s)


def _class_count(name: str, parameters: Any) -> int:  # noqa: ANN401 - protobuf's map has no public type
    """Return the number of labels in Triton's classification form, 0 for plain output."""
    if name not in _OUTPUTS:
        raise InvalidRequestError(f"outputs: there is no {name!r}; there is: {', '.join(_OUTPUTS)}")
    if _CLASSIFICATION not in parameters:
        return 0
    count: int = parameters[_CLASSIFICATION].int64_param
    if name != "probabilities" or count < 1:
        raise InvalidRequestError(f"outputs: classification {count} of {name!r}; it is 1 or more, of 'probabilities'")
    return count


def _add_output(response: pb.ModelInferResponse, name: str, class_count: int, inference: Inference) -> None:
    labels, outputs = inference.served.card.labels, inference.outputs
    if name == "embedding":
        add_floats(response, name, [output.embedding for output in outputs])
    elif name == "novelty":
        add_floats(response, name, [[output.novelty] for output in outputs])
    elif name == "label":
        best = [labels[int(output.probabilities.argmax())] for output in outputs]
        add_texts(response, name, [len(outputs), 1], best)
    elif class_count:
        rows = [output.best(class_count) for output in outputs]
        texts = [
            f"{output.probabilities[index]:f}:{index}:{labels[index]}"
            for output, row in zip(outputs, rows, strict=True)
            for index in row
        ]
        add_texts(response, name, [len(outputs), len(rows[0])], texts)
    else:
        add_floats(response, name, [output.probabilities for output in outputs])


def _statistics(served: ServedModel, statistics: Statistics) -> pb.ModelStatistics:
    def duration(value: Duration | Distribution) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=value.count, ns=value.sum_ns)

    return pb.ModelStatistics(
        name=served.name,
        version=str(served.version),
        last_inference=statistics.last_ms,
        inference_count=statistics.pictures,
        execution_count=round(statistics.runs),
        inference_stats=pb.InferStatistics(
            success=duration(statistics.success),
            fail=duration(statistics.fail),
            queue=duration(statistics.stages["queue"]),
            compute_input=duration(statistics.stages["decode"]),
            compute_infer=duration(statistics.stages["inference"]),
            # Not timed, but counted: perf_analyzer stops where the three counts differ.
            compute_output=pb.StatisticDuration(count=statistics.stages["inference"].count),
        ),
    )
