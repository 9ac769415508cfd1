"""The Retraining service: labelled pictures and retrain jobs."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from regraft.client.message_values import to_timestamp, word_of
from regraft.errors import InvalidRequestError
from regraft.gate_limits import LIMIT_NAMES, to_points
from regraft.label_rules import check_note, nfc
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import MAX_KEY_LENGTH, JobKind, JobState, LearningPoint, RetrainJob, TrainingOptions
from regraft.stores.labels import NewExample
from regraft.stores.models import GateMode, ModelStore
from regraft.v1 import retraining_pb2 as pb
from regraft.v1 import retraining_pb2_grpc as pb_grpc
from serving.inference.registry import ModelRegistry
from serving.lifecycle.first_versions import FirstVersions
from serving.retraining.add_examples import ExampleIntake, Sender, sending
from serving.retraining.jobs import JobRunner, check_trainable
from serving.retraining.previews import Look, Previews
from serving.rpc.context import Context
from serving.rpc.labelled.previews import to_preview
from serving.rpc.pages import as_many_as_fit, page_size, page_start, page_token
from serving.rpc.parsing import check_batch, check_choice
from serving.rpc.streams import answer_all, answers
from serving.telemetry.call import (
    actor,
    check_may_name,
    forget_request,
    may_name,
    may_name_any,
    note_effect,
    note_first,
    shield,
)
from serving.telemetry.metrics import Metrics

_MAX_JOBS: Final = 200
"""In one answer."""


class RetrainingService(pb_grpc.RetrainingServicer):
    """The servicer; every rule is in `serving.retraining` and `regraft.stores.jobs`."""

    def __init__(
        self,
        *,
        models: ModelRegistry,
        examples: ExamplesStore,
        intake: ExampleIntake,
        runner: JobRunner,
        first_versions: FirstVersions,
        previews: Previews,
        metrics: Metrics,
        gate: GateMode = GateMode.AUTO,
        check_trainable: Callable[[ModelStore, ExamplesStore, str, int], None] = check_trainable,
    ) -> None:
        """Make the service.

        Args:
            models: that are served.
            examples: holds the jobs.
            intake: takes the pictures in.
            runner: starts the jobs.
            first_versions: knows what models without a version lack.
            previews: look at what a job would make.
            metrics: counts the examples.
            gate: the mode of jobs that state none.
            check_trainable: see `serving.retraining.jobs`.
        """
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._intake = intake
        self._runner = runner
        self._first_versions = first_versions
        self._previews = previews
        self._metrics = metrics
        self._gate = gate
        self._check_trainable = check_trainable

    async def AddExamples(
        self, requests: AsyncIterator[pb.AddExamplesRequest], _context: Context
    ) -> AsyncIterator[pb.AddExamplesResponse]:
        """Store labelled pictures; an answered one is on the disk."""
        async with sending() as sender, aclosing(answers(requests, partial(self._add, sender=sender))) as responses:
            async for response in responses:
                yield response

    async def BatchAddExamples(
        self, request: pb.BatchAddExamplesRequest, _context: Context
    ) -> pb.BatchAddExamplesResponse:
        """Store the labelled pictures of one message, each as a stream's."""
        check_batch(request.requests)
        forget_request()
        async with sending() as sender:
            responses = await answer_all(request.requests, partial(self._add, sender=sender))
        return pb.BatchAddExamplesResponse(responses=responses)

    async def Retrain(self, request: pb.RetrainRequest, context: Context) -> pb.RetrainResponse:
        """Start a job."""
        return pb.RetrainResponse(job=await shield(self._retrain(request), context))

    async def _retrain(self, request: pb.RetrainRequest) -> pb.RetrainJob:
        model = self._models.held(request.name)
        await self._first_versions.check_enough(model)
        return await self._start(model.name, request, self._settings(request), JobKind.RETRAIN)

    async def Train(self, request: pb.TrainRequest, context: Context) -> pb.TrainResponse:
        """Start a job that trains backbone and head."""
        return pb.TrainResponse(job=await shield(self._train(request), context))

    async def _train(self, request: pb.TrainRequest) -> pb.RetrainJob:
        served = self._models.get(request.name)
        epochs = request.epochs if request.HasField("epochs") else None
        options = TrainingOptions(request.backbone, request.strategy, request.precision, epochs)
        options.check()
        settings = {**self._settings(request), **options.stated()}
        check = partial(self._check_trainable, self._models.store, self._examples, served.name, served.version)
        await self._threads.database.run(check)
        return await self._start(served.name, request, settings, JobKind.TRAIN)

    async def _start(
        self, name: str, request: pb.RetrainRequest | pb.TrainRequest, settings: dict[str, Any], kind: JobKind
    ) -> pb.RetrainJob:
        if len(request.idempotency_key) > MAX_KEY_LENGTH:
            raise InvalidRequestError(f"idempotency_key: the limit is {MAX_KEY_LENGTH} characters")
        check_note("requested_by", request.requested_by)
        job = await self._runner.start(name, settings, actor(request.requested_by), request.idempotency_key, kind)
        note_effect(job=job.id)
        return to_message(job)

    async def GetRetrainJob(self, request: pb.GetRetrainJobRequest, _context: Context) -> pb.GetRetrainJobResponse:
        """Return a job as it stands."""
        job = await self._job(request.id)
        return pb.GetRetrainJobResponse(job=to_message(job, job.points))

    async def WatchRetrainJob(
        self, request: pb.WatchRetrainJobRequest, _context: Context
    ) -> AsyncIterator[pb.WatchRetrainJobResponse]:
        """Follow a job to its end."""
        await self._job(request.id)
        told: Sequence[LearningPoint] = ()
        async for job in self._runner.watch(request.id):
            yield pb.WatchRetrainJobResponse(job=to_message(job), points=_to_points(_new_points(told, job.points)))
            told = job.points

    async def ListRetrainJobs(
        self, request: pb.ListRetrainJobsRequest, _context: Context
    ) -> pb.ListRetrainJobsResponse:
        """List the jobs, newest first, a page at a time."""
        most, before = page_size(request, _MAX_JOBS), page_start(request, parts=2)
        models = None if request.name or may_name_any() else await self._threads.store.run(self._models.store.names)
        among = None if models is None else [*filter(may_name, models)]
        listing = partial(self._examples.jobs.list, nfc(request.name), among=among, before=before, most=most + 1)
        jobs = await self._threads.database.run(listing)
        page = pb.ListRetrainJobsResponse(jobs=await as_many_as_fit(map(to_message, jobs[:most])))
        if page.jobs and len(page.jobs) < len(jobs):
            last = jobs[len(page.jobs) - 1]
            page.next_page_token = page_token(request, last.created_at, last.id)
        return page

    async def CancelRetrainJob(
        self, request: pb.CancelRetrainJobRequest, context: Context
    ) -> pb.CancelRetrainJobResponse:
        """Ask for the end of a job."""
        return pb.CancelRetrainJobResponse(job=await shield(self._cancel(request), context))

    async def _cancel(self, request: pb.CancelRetrainJobRequest) -> pb.RetrainJob:
        await self._job(request.id)
        job = await self._runner.cancel(request.id)
        note_effect(job=job.id, state=job.state.value)
        return to_message(job)

    async def Preview(self, request: pb.PreviewRequest, _context: Context) -> pb.PreviewResponse:
        """Look at the head that a retrain would make now."""
        model = self._models.held(request.name)
        await self._first_versions.check_enough(model)
        seen = await self._previews.look(model.name, Look.PREVIEW)
        return pb.PreviewResponse(preview=await self._threads.database.run(to_preview, model.name, seen))

    async def _job(self, job_id: str) -> RetrainJob:
        """Return a job of a model that the caller may name."""
        job = await self._threads.database.run(self._examples.jobs.get, job_id)
        check_may_name(job.model)
        return job

    def _settings(self, request: pb.RetrainRequest | pb.TrainRequest) -> dict[str, Any]:
        """Return the settings of a job.

        Raises:
            InvalidRequestError: a limit, or a mode that there is not.
        """
        check_choice("gate", request.gate, pb.GateMode)
        mode = GateMode(word_of(pb.GateMode, request.gate).lower()) if request.gate else self._gate
        return {**_limits(request.limits), "gate": mode.value}

    async def _add(
        self, request: pb.AddExamplesRequest, on_admitted: Callable[[], None], *, sender: Sender
    ) -> pb.AddExamplesResponse:
        note_first(request)
        new = NewExample(
            request.image,
            request.label,
            request.source,
            request.annotator,
            request.request_id,
            request.group,
            request.sha256,
        )
        name = request.name
        del request  # a second copy of the picture, which is not counted while it waits for room
        added = await self._intake.add(name, new, sender, on_admitted)
        self._metrics.examples.labels(added.outcome.value).inc()
        return pb.AddExamplesResponse(
            outcome=f"OUTCOME_{added.outcome.name}",
            reason=added.reason,
            sha256=added.sha256,
            retry_after_s=added.retry_after_s,
        )


def _limits(limits: pb.GateLimits) -> dict[str, float]:
    """Return the limits that are stated, in percentage points.

    Raises:
        InvalidRequestError: one of them is no share.
    """
    return to_points({name: getattr(limits, name) for name in LIMIT_NAMES if limits.HasField(name)})


def _new_points(before: Sequence[LearningPoint], now: Sequence[LearningPoint]) -> Sequence[LearningPoint]:
    """Return the points of a curve that it lacked before."""
    same = 0
    while same < min(len(before), len(now)) and before[same] == now[same]:
        same += 1
    return now[same:]


def _to_points(points: Sequence[LearningPoint]) -> list[pb.LearningPoint]:
    return [pb.LearningPoint(**vars(point)) for point in points]


def to_message(job: RetrainJob, points: Sequence[LearningPoint] = ()) -> pb.RetrainJob:
    """Return a job as a message, with points of its curve."""
    return pb.RetrainJob(
        id=job.id,
        name=job.model,
        state=f"STATE_{JobState(job.state)}",
        phase=job.phase,
        fraction=job.fraction,
        message=job.message,
        requested_by=job.requested_by,
        champion=job.champion or 0,
        version=job.version or 0,
        verdict=pb.Verdict(**job.verdict) if job.verdict else None,
        created_at=to_timestamp(job.created_at),
        finished_at=to_timestamp(job.finished_at) if job.finished_at else None,
        kind=f"KIND_{job.kind.name}",
        points=_to_points(points),
    )
