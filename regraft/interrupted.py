"""A retrain job whose process is gone: who holds a model's job, and how an orphaned one is brought to its end.

The process that runs a job holds a lock of the model for as long as it lives; the system lets go of it however the
process ends. A job that is RUNNING while its lock is free was therefore interrupted.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from regraft.errors import PreconditionError
from regraft.examples import ExamplesStore
from regraft.files import locked_or_none
from regraft.retrain_jobs import REFUSED_BECAUSE, JobState, RetrainJob
from regraft.store import ModelStore


@contextmanager
def job_lock(examples: ExamplesStore, model: str) -> Iterator[None]:
    """Hold the right to retrain ``model``.

    Raises:
        PreconditionError: another process holds it.
    """
    with locked_or_none(examples.locks / f"{model}.lock") as taken:
        if not taken:
            raise PreconditionError(f"model {model!r} is being retrained by another process: wait for it")
        yield


def settle_interrupted(examples: ExamplesStore, store: ModelStore, why: str) -> list[RetrainJob]:
    """Bring every job that is RUNNING without a process to its final state.

    A job whose last act is in the store's history, the promotion or the refusal, SUCCEEDED or was REFUSED, although it
    could not say so any more.

    Args:
        examples: holds the jobs.
        store: holds the history.
        why: what is known of the process's end.

    Returns:
        The jobs that were settled.
    """
    settled = []
    for job in examples.jobs.list():
        if job.state is not JobState.RUNNING:
            continue
        with locked_or_none(examples.locks / f"{job.model}.lock") as taken:
            if not taken:
                continue
            acts = [entry for entry in store.history(job.model) if entry.job == job.id]
            promoted = [entry.version for entry in acts if entry.event == "promote"]
            refusals = [
                (entry.version, entry.why.removeprefix(REFUSED_BECAUSE))
                for entry in acts
                if entry.event == "publish" and entry.why.startswith(REFUSED_BECAUSE)
            ]
            if promoted:
                examples.jobs.finish(job.id, JobState.SUCCEEDED, f"version {promoted[-1]} serves", version=promoted[-1])
            elif refusals:
                version, why_refused = refusals[-1]
                examples.jobs.finish(job.id, JobState.REFUSED, why_refused, version=version)
            elif examples.jobs.get(job.id).cancel_requested:
                examples.jobs.finish(job.id, JobState.CANCELLED, "cancelled")
            else:
                examples.jobs.finish(job.id, JobState.FAILED, f"interrupted in phase {job.phase or 'start'!r}: {why}")
        settled.append(examples.jobs.get(job.id))
    return settled
