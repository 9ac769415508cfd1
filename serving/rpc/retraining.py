"""The Retraining service: labelled pictures and retrain jobs."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from regraft.errors import InvalidRequestError
from regraft.gate_limits import LIMIT_NAMES, check_limits
from regraft.label_rules import check_note, nfc
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import MAX_KEY_LENGTH, JobState, RetrainJob
from regraft.stores.labels import NewExample
from regraft.stores.models import GateMode
from regraft.v1 import retraining_pb2 as pb
from regraft.v1 import retraining_pb2_grpc as pb_grpc
from serving.inference.registry import ModelRegistry
from serving.retraining.add_examples import ExampleIntake, Sender
from serving.retraining.jobs import JobRunner
from serving.rpc.context import Context
from serving.rpc.parsing import as_many_as_fit
from serving.rpc.streams import answers
from serving.telemetry.call import actor, caller, current, note_effect, shield
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
        metrics: Metrics,
        gate: GateMode = GateMode.AUTO,
    ) -> None:
        """Make the service.

        Args:
            models: that are served.
            examples: holds the jobs.
            intake: takes the pictures in.
            runner: starts the jobs.
            metrics: counts the examples.
            gate: the mode of jobs that state none.
        """
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._intake = intake
        self._runner = runner
        self._metrics = metrics
        self._gate = gate

    async def AddExamples(
        self, requests: AsyncIterator[pb.AddExamplesRequest], _context: Context
    ) -> AsyncIterator[pb.AddExamplesResponse]:
        """Store labelled pictures; an answered one is on the disk."""
        sender = Sender(caller())
        try:
            async with aclosing(answers(requests, partial(self._add, sender=sender))) as responses:
                async for response in responses:
                    yield response
        finally:
            await sender.settled()
            note_effect(**{outcome.value: count for outcome, count in sender.outcomes.items()})

    async def Retrain(self, request: pb.RetrainRequest, context: Context) -> pb.RetrainJob:
        """Start a job."""
        return await shield(self._retrain(request), context)

    async def _retrain(self, request: pb.RetrainRequest) -> pb.RetrainJob:
        served = self._models.get(request.name)
        if len(request.idempotency_key) > MAX_KEY_LENGTH:
            raise InvalidRequestError(f"idempotency_key: the limit is {MAX_KEY_LENGTH} characters")
        check_note("requested_by", request.requested_by)
        asked_by, key = actor(request.requested_by), request.idempotency_key
        job = await self._runner.start(served.name, self._settings(request), asked_by, key)
        note_effect(job=job.id)
        return to_message(job)

    async def GetRetrainJob(self, request: pb.GetRetrainJobRequest, _context: Context) -> pb.RetrainJob:
        """Return a job as it stands."""
        return to_message(await self._threads.database.run(self._examples.jobs.get, request.id))

    async def WatchRetrainJob(
        self, request: pb.GetRetrainJobRequest, _context: Context
    ) -> AsyncIterator[pb.RetrainJob]:
        """Follow a job to its end."""
        async for job in self._runner.watch(request.id):
            yield to_message(job)

    async def ListRetrainJobs(
        self, request: pb.ListRetrainJobsRequest, _context: Context
    ) -> pb.ListRetrainJobsResponse:
        """List the jobs, newest first, a page at a time."""
        if request.page_size < 0:
            raise InvalidRequestError(f"page_size: {request.page_size}; it is 1 or more, or 0 for the server's own")
        most = min(request.page_size or _MAX_JOBS, _MAX_JOBS)
        created_at, _, job_id = request.page_token.partition("/")
        before = (created_at, job_id) if request.page_token else None
        listing = partial(self._examples.jobs.list, nfc(request.name), before=before, most=most + 1)
        jobs = await self._threads.database.run(listing)
        messages = as_many_as_fit(map(to_message, jobs[:most]))
        page = pb.ListRetrainJobsResponse(jobs=messages)
        if messages and len(messages) < len(jobs):
            last = jobs[len(messages) - 1]
            page.next_page_token = f"{last.created_at}/{last.id}"
        return page

    async def CancelRetrainJob(self, request: pb.CancelRetrainJobRequest, context: Context) -> pb.RetrainJob:
        """Ask for the end of a job."""
        return await shield(self._cancel(request), context)

    async def _cancel(self, request: pb.CancelRetrainJobRequest) -> pb.RetrainJob:
        job = await self._runner.cancel(request.id)
        note_effect(job=job.id, state=job.state.value)
        return to_message(job)

    def _settings(self, request: pb.RetrainRequest) -> dict[str, Any]:
        """Return the settings of a job.

        Raises:
            InvalidRequestError: a limit, or a mode that there is not.
        """
        if request.gate not in pb.GateMode.values():
            raise InvalidRequestError(f"gate: {request.gate} is none of {', '.join(pb.GateMode.keys()[1:])}")
        mode = GateMode(pb.GateMode.Name(request.gate).lower()) if request.gate else self._gate
        return {**_limits(request), "gate": mode.value}

    async def _add(
        self, request: pb.AddExamplesRequest, on_admitted: Callable[[], None], *, sender: Sender
    ) -> pb.AddExamplesResponse:
        if (call := current()) and call.request is None:  # the first one stands for the stream
            fields = {field.name: value for field, value in request.ListFields() if field.name != "image"}
            call.request = pb.AddExamplesRequest(**fields)
        new = NewExample(
            request.image, request.label, request.source, request.annotator, request.request_id, request.group
        )
        name = request.name
        del request  # a second copy of the picture, which is not counted while it waits for room
        added = await self._intake.add(name, new, sender, on_admitted)
        self._metrics.examples.labels(added.outcome.value).inc()
        return pb.AddExamplesResponse(
            outcome=added.outcome.name, reason=added.reason, sha256=added.sha256, retry_after_s=added.retry_after_s
        )


def _limits(request: pb.RetrainRequest) -> dict[str, Any]:
    """Return the limits that a request states.

    Raises:
        InvalidRequestError: one of them is no share of 100.
    """
    stated = {name: getattr(request, name) for name in LIMIT_NAMES if request.HasField(name)}
    check_limits(stated)
    return stated


def to_message(job: RetrainJob) -> pb.RetrainJob:
    """Return a job as a message."""
    return pb.RetrainJob(
        id=job.id,
        name=job.model,
        state=JobState(job.state).value,
        phase=job.phase,
        fraction=job.fraction,
        message=job.message,
        requested_by=job.requested_by,
        champion=job.champion or 0,
        version=job.version or 0,
        verdict=pb.Verdict(**job.verdict) if job.verdict else None,
        created_at=job.created_at,
        finished_at=job.finished_at or "",
    )
