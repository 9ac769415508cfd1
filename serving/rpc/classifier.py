"""The Classifier service, over `serving.inference.classifier`."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from regraft.errors import InvalidRequestError, NoVersionError, RegraftError
from regraft.v1 import classifier_pb2 as pb
from regraft.v1 import classifier_pb2_grpc as pb_grpc
from serving.inference.classifier import Answer, Classifier
from serving.lifecycle.first_versions import FirstVersions
from serving.rpc.context import Context, deadline_of
from serving.rpc.parsing import check_batch
from serving.rpc.status import picture_error
from serving.rpc.streams import answer_all, answers, with_first

_MAX_TOP_K: Final = 100_000


class ClassifierService(pb_grpc.ClassifierServicer):
    """The servicer; every rule is in `serving.inference.classifier`."""

    def __init__(self, classifier: Classifier, first_versions: FirstVersions) -> None:
        """Answer with ``classifier``; ``first_versions`` knows what models without a version lack."""
        self._classifier = classifier
        self._first_versions = first_versions

    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        """Classify one picture."""
        return await self._classify(request, deadline_of(context))

    async def ClassifyStream(
        self, requests: AsyncIterator[pb.ClassifyStreamRequest], context: Context
    ) -> AsyncIterator[pb.ClassifyStreamResponse]:
        """Classify a stream, several pictures at once."""
        deadline_s = deadline_of(context)
        first, requests = await with_first(requests)
        any_order = bool(first and first.any_order)
        del first  # or its picture would be kept as long as the stream
        outcome = partial(self._outcome, deadline_s=deadline_s)
        async for response in answers(requests, outcome, any_order=any_order):
            yield response

    async def BatchClassify(self, request: pb.BatchClassifyRequest, context: Context) -> pb.BatchClassifyResponse:
        """Classify the pictures of one message, each as a stream's."""
        check_batch(request.requests)
        outcome = partial(self._batch_outcome, deadline_s=deadline_of(context))
        return pb.BatchClassifyResponse(outcomes=await answer_all(request.requests, outcome))

    async def _batch_outcome(
        self, request: pb.ClassifyRequest, on_admitted: Callable[[], None], *, deadline_s: float | None
    ) -> pb.ClassifyOutcome:
        try:
            return pb.ClassifyOutcome(response=await self._classify(request, deadline_s, on_admitted))
        except RegraftError as error:
            return pb.ClassifyOutcome(error=picture_error(error))

    async def _outcome(
        self, request: pb.ClassifyStreamRequest, on_admitted: Callable[[], None], *, deadline_s: float | None
    ) -> pb.ClassifyStreamResponse:
        key, answer = request.id, self._classify(request.request, deadline_s, on_admitted)
        del request  # a second copy of the picture, which is not counted while it waits for room
        try:
            response = await answer
        except RegraftError as error:
            return error_message(key, error)
        return pb.ClassifyStreamResponse(id=key, response=response)

    async def _classify(
        self, request: pb.ClassifyRequest, deadline_s: float | None, on_admitted: Callable[[], None] | None = None
    ) -> pb.ClassifyResponse:
        if request.top_k > _MAX_TOP_K:
            raise InvalidRequestError(f"top_k: {request.top_k}; the most is {_MAX_TOP_K}")
        answer = self._classifier.classify(
            request.image, name=request.name, top_k=request.top_k, deadline_s=deadline_s, on_admitted=on_admitted
        )
        del request
        try:
            return to_message(await answer)
        except NoVersionError as error:
            raise NoVersionError(error.model, await self._first_versions.missing(error.model)) from error


def error_message(key: str, error: RegraftError) -> pb.ClassifyStreamResponse:
    """Return the message for a failed picture of a stream."""
    return pb.ClassifyStreamResponse(id=key, error=picture_error(error))


def to_message(answer: Answer) -> pb.ClassifyResponse:
    """Return an answer as a message."""
    threshold, abstention = answer.served.card.novelty_threshold, answer.served.card.abstention
    return pb.ClassifyResponse(
        name=answer.served.name,
        version=answer.served.version,
        predictions=[pb.Prediction(label=label, probability=value) for label, value in answer.predictions],
        novelty=pb.Novelty(score=answer.novelty, threshold=threshold, is_novel=answer.novelty > threshold),
        timings=pb.Timings(**{f"{stage}_ms": 1000 * value for stage, value in answer.seconds.items()}),
        request_id=answer.request_id,
        abstain=abstention.abstains(answer.predictions[0][1]) if abstention else False,
        abstention=pb.Abstention(
            target_error=abstention.target_error, threshold=abstention.threshold, answered=abstention.answered
        )
        if abstention
        else None,
    )
