"""Child processes of retrain jobs: start, watch, cancel, settle."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import Context
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from regraft.errors import PreconditionError, RegraftError, StorageError
from regraft.image.limits import DEFAULT_LIMITS, ImageLimits
from regraft.safe_path import module_command
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobKind, JobState, RetrainJob
from regraft.stores.models import FEATURES_FILE, ModelStore
from regraft.stores.originals import pictures_missing
from regraft.stores.recovery import OUT_OF_MEMORY, TAKEN, settle_interrupted
from serving.retraining.job_watchers import JobWatchers
from serving.retraining.process_state import is_stopped
from serving.telemetry.metrics import Metrics
from serving.threads import Threads

log = logging.getLogger("regraft.jobs")

_LOOK_EVERY_S: Final = 0.2
"""How often a job's row is read while somebody watches it: another process writes it."""
_STOPPED_LOOKS: Final = 3
_STOPPED_LOOK_EVERY_S: Final = 1.0
"""A child that is stopped at so many looks is ended: shorter than a write waits for its lock (`Patience`)."""

_TERM_GRACE_S: Final = 5.0

_EXIT_TEXTS: Final = {
    OUT_OF_MEMORY: "it needed more memory than its limit (REGRAFT_RETRAIN_MEMORY_MB), and its process ended",
    TAKEN: "its model is being retrained by another process, outside of any job",
}

_NO_TORCH: Final = (
    "a training needs torch, which is not installed where this server runs: pip install 'regraft[train]'; a retrain of "
    "the head alone does without"
)


class JobRunner:
    """The runner of retrain jobs, each a process of ``training.retrain``.

    It sees every job to a final state; use it from one event loop. A job whose process was killed is started once
    more; one that was killed with its server, by the next start, or by another server on the same stores.
    """

    def __init__(
        self,
        store: ModelStore,
        examples: ExamplesStore,
        child_arguments: list[str],
        metrics: Metrics,
        threads: Threads,
        on_finished: Callable[[], Awaitable[None]],
        *,
        kind_arguments: Mapping[JobKind, list[str]] = MappingProxyType({}),
        limits_s: Mapping[JobKind, float] = MappingProxyType({}),
        database: str = "",
        limits: ImageLimits = DEFAULT_LIMITS,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Make a runner.

        Args:
            store: for the jobs' versions.
            examples: with the jobs' rows.
            child_arguments: flags that tell a child where both are.
            metrics: counts the outcomes.
            threads: ask and change the rows.
            on_finished: awaited after each job, before watchers of this server hear of its end.
            kind_arguments: further flags of jobs of a kind.
            limits_s: after so long a child of a kind is killed. It has a limit of its own, but cannot keep it while it
                is stopped.
            database: URL of the examples' database, unless it is in their folder; may hold a password, so that no
                child gets it as an argument, which everybody on the machine can read.
            limits: of pictures, which hold in the children too.
            environment: further variables of the children.
        """
        self._store = store
        self._examples = examples
        self._child_arguments = child_arguments
        self._environment = {**os.environ, **limits.environment(), **environment, "REGRAFT_DATABASE": database}
        self._metrics = metrics
        self._threads = threads
        self._on_finished = on_finished
        self._kind_arguments = kind_arguments
        self._limits_s = limits_s
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._kinds: dict[str, JobKind] = {}
        self._finishing: dict[str, asyncio.Event] = {}
        self._taken_once: set[str] = set()
        self._turns = {kind: asyncio.Lock() for kind in JobKind}  # no retrain waits for hours of a training
        self._closing = False
        self._watchers = JobWatchers(self._look, _LOOK_EVERY_S)

    async def resume(self) -> None:
        """Resume jobs that a crash interrupted, and start those that waited."""
        await self._settle_orphans()
        for job in await self._threads.database.run(self._examples.jobs.list, "", JobState.PENDING):
            self._launch(job)

    async def run(self, every_s: float) -> None:
        """Take up interrupted jobs of other servers, until cancelled.

        Likewise those that wait at two looks in a row: the server that was to start them may be gone. If it is only
        busy, whichever process claims the job first runs it.
        """
        waiting: set[str] = set()
        while True:
            await asyncio.sleep(every_s)
            try:
                await self._settle_orphans()
                waiting = await self._take_up(waiting)
            except (RegraftError, OSError) as error:
                log.warning("cannot look for interrupted jobs: %s", error)

    async def start(
        self,
        model: str,
        settings: dict[str, Any],
        requested_by: str,
        idempotency_key: str = "",
        kind: JobKind = JobKind.RETRAIN,
    ) -> RetrainJob:
        """Queue a job, or return the one of this idempotency key.

        Raises:
            PreconditionError: the model has an unfinished job.
        """
        jobs, key = self._examples.jobs, idempotency_key or None
        if key and (earlier := await self._threads.database.run(jobs.with_key, model, key)):
            return earlier
        await self._settle_orphans()
        try:
            job = await self._threads.writes.run(jobs.create, model, settings, requested_by, key, kind)
        except PreconditionError:
            if key and (earlier := await self._threads.database.run(jobs.with_key, model, key)):
                return earlier  # the same request came twice at once
            raise
        self._launch(job)
        return job

    async def cancel(self, job_id: str) -> RetrainJob:
        """Cancel a job; a child of this server gets SIGTERM too.

        Raises:
            NotFoundError: there is no such job.
        """
        job = await self._threads.database.run(self._examples.jobs.get, job_id)
        if job.state.is_final:
            return job
        job = await self._threads.writes.run(self._examples.jobs.request_cancel, job_id)
        child = self._children.get(job_id)
        if child is not None and child.returncode is None:
            child.send_signal(signal.SIGTERM)
            asyncio.get_running_loop().call_later(_TERM_GRACE_S, _kill, child)
        return job

    def watch(self, job_id: str) -> AsyncGenerator[RetrainJob, None]:
        """Yield a job now and at each change, until its final state.

        Raises:
            NotFoundError: there is no such job.
        """
        return self._watchers.watch(job_id)

    async def _look(self, job_id: str) -> RetrainJob:
        job = await self._threads.database.run(self._examples.jobs.get, job_id)
        finishing = self._finishing.get(job_id)
        if job.state is JobState.RUNNING and not finishing:  # not our child: nobody else would notice its death
            await self._settle_orphans()
        if job.state.is_final and finishing:
            await finishing.wait()  # so that who is told of a success finds the new version serving
        return job

    async def close(self) -> None:
        """Stop the children of this server; the next start resumes their jobs."""
        self._closing = True
        for child in self._children.values():
            with suppress(ProcessLookupError):
                child.terminate()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=_TERM_GRACE_S)
        for child in self._children.values():
            with suppress(ProcessLookupError):
                child.kill()

    async def _settle_orphans(self) -> None:
        """Restart or end jobs that are RUNNING without a process."""
        for job in await self._threads.database.run(self._examples.jobs.list, "", JobState.RUNNING):
            if job.id in self._tasks or self._closing:
                continue
            why = "its process, or its server, was killed"
            settled = await self._threads.writes.run(settle_interrupted, self._examples, self._store, job, why)
            if settled:
                fields = (settled.id, settled.model, settled.state, settled.message)
                log.warning("retrain job %s of %s, found interrupted, is %s: %s", *fields)
                self._launch(settled)

    async def _take_up(self, waited: set[str]) -> set[str]:
        """Start others' jobs that are PENDING at two looks; return those PENDING now."""
        pending = await self._threads.database.run(self._examples.jobs.list, "", JobState.PENDING)
        others = [job for job in pending if job.id not in self._tasks and not self._closing]
        for job in others:
            if job.id in waited:
                log.info("retrain job %s of %s waits, and perhaps its server is gone: taken up", job.id, job.model)
                self._launch(job)
        return {job.id for job in others}

    def _launch(self, job: RetrainJob) -> None:
        if job.id in self._tasks or job.state.is_final:
            return
        # Otherwise it has to wait for its turn, and watchers of one cancelled till then must not.
        if job.kind not in self._kinds.values():
            self._finishing[job.id] = asyncio.Event()
        self._kinds[job.id] = job.kind
        # A context of its own: it outlives its caller.
        task = self._tasks[job.id] = asyncio.create_task(self._run(job), context=Context())
        task.add_done_callback(lambda _: (self._tasks.pop(job.id), self._kinds.pop(job.id)))

    async def _run(self, job: RetrainJob) -> None:
        """Run the processes of one job, after those of others of its kind."""
        async with self._turns[job.kind]:
            finishing = self._finishing.setdefault(job.id, asyncio.Event())
            try:
                while await self._run_child(job):
                    pass
                await self._on_finished()
            except Exception:
                log.exception("retrain job %s", job.id)
                why = "the server could not run it; its log has the details"
                with suppress(RegraftError):  # the database is away: the job is settled when it is back
                    await self._threads.writes.run(self._examples.jobs.finish, job.id, JobState.FAILED, why)
                    self._count(await self._threads.database.run(self._examples.jobs.get, job.id))
            finally:
                self._children.pop(job.id, None)
                self._taken_once.discard(job.id)
                self._finishing.pop(job.id)
                finishing.set()

    async def _run_child(self, job: RetrainJob) -> bool:
        """Run one process of a job; True asks for another."""
        now = await self._threads.database.run(self._examples.jobs.get, job.id)
        if now.state is not JobState.PENDING:  # cancelled while it waited, or another server was faster
            if now.state.is_final:
                self._count(now)
            return False
        if self._closing:
            return False
        arguments = [*self._child_arguments, *self._kind_arguments.get(job.kind, ()), "--job", job.id]
        child = await asyncio.create_subprocess_exec(
            *module_command("training.retrain"), *arguments, env=self._environment
        )
        self._children[job.id] = child
        ending = asyncio.create_task(_end_when_stopped(child))
        try:
            async with asyncio.timeout(self._limits_s.get(job.kind)):
                code = await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()
            return await self._settle(now, "it outlived its time limit and was killed", again=False)
        finally:
            was_stopped = ending.done()
            ending.cancel()
        if code == TAKEN and job.id not in self._taken_once:
            # The holder of the lock may be just about to claim the job. When a second process is up, it has.
            self._taken_once.add(job.id)
            log.info("retrain job %s of %s: another process was faster", job.id, job.model)
            return True
        if code >= 0:
            return await self._settle(
                now, _EXIT_TEXTS.get(code, f"its process ended with exit code {code}"), again=False
            )
        if was_stopped:
            why = "its process was stopped (SIGSTOP, or a freezer), and ended since it may have held a lock"
        else:
            why = "its server was stopped" if self._closing else f"its process was ended by signal {-code}"
        return await self._settle(now, why, again=True)

    async def _settle(self, before: RetrainJob, why: str, *, again: bool) -> bool:
        """Settle a job whose process is gone; True asks for a new process."""
        settle = partial(settle_interrupted, self._examples, self._store, before, why, again=again)
        settled = await self._threads.writes.run(settle)
        now = await self._threads.database.run(self._examples.jobs.get, before.id)
        log.info("retrain job %s of %s: %s: %s", now.id, now.model, now.state, now.message)
        if now.state.is_final:
            self._count(now)
        return settled is not None and not now.state.is_final

    def _count(self, end: RetrainJob) -> None:
        """Count a job's end, with its duration and the gate's accuracies."""
        self._metrics.retrain_jobs.labels(end.model, end.state.value.lower()).inc()
        if end.finished_at:
            seconds = (datetime.fromisoformat(end.finished_at) - datetime.fromisoformat(end.created_at)).total_seconds()
            of_kind = {JobKind.RETRAIN: self._metrics.retrain_seconds, JobKind.TRAIN: self._metrics.train_seconds}
            of_kind[end.kind].labels(end.model).observe(seconds)
        if end.verdict:
            heads = ("champion", "challenger") if not end.verdict.get("first") else ("challenger",)
            for head in heads:
                self._metrics.gate_accuracy.labels(end.model, head).set(end.verdict[f"{head}_accuracy"])


async def _end_when_stopped(child: asyncio.subprocess.Process) -> None:
    """End a child that was stopped.

    Inside a write it would hold the database's lock, or the store's, for ever.
    """
    looks = 0
    while looks < _STOPPED_LOOKS:
        await asyncio.sleep(_STOPPED_LOOK_EVERY_S)
        looks = looks + 1 if is_stopped(child.pid) else 0
    log.warning("the process %d of a retrain job is stopped, and ended: it may hold a lock", child.pid)
    _kill(child)


def _kill(child: asyncio.subprocess.Process) -> None:
    """Kill a child that is still running."""
    if child.returncode is None:
        child.kill()


def has_torch() -> bool:
    """Tell whether torch is installed, without importing it."""
    return find_spec("torch") is not None


def check_trainable(
    store: ModelStore, examples: ExamplesStore, model: str, version: int, torch_is_here: Callable[[], bool] = has_torch
) -> None:
    """Check that a model can be trained anew on its examples.

    Args:
        store: has the model.
        examples: should have all its pictures.
        model: its name.
        version: the champion.
        torch_is_here: tells whether torch is installed.

    Raises:
        PreconditionError: it cannot; the text says what to do.
        StorageError: a store refused.
    """
    if not torch_is_here():
        raise PreconditionError(_NO_TORCH)
    file = store.folder(model, version) / FEATURES_FILE
    try:
        with np.load(file, allow_pickle=False) as features:
            pictures = [str(sha256) for sha256 in features["sha256"]]
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(f"{file}: cannot read the features ({error})") from error
    known = examples.originals.known(model)
    if missing := [sha256 for sha256 in pictures if sha256 not in known]:
        raise PreconditionError(pictures_missing(model, missing, len(pictures)))
