"""Recovery of retrain jobs whose process is gone.

The process that runs a job holds a lock of the model for as long as it lives; the system lets go of it however the
process ends. A job that is RUNNING while its lock is free was therefore interrupted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from regraft.errors import PreconditionError
from regraft.files import locked_or_none
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobState, RetrainJob
from regraft.stores.models import ModelStore

OUT_OF_MEMORY: Final = 70
"""Exit code of a job beyond its memory that could not stop otherwise, inside native code."""

TAKEN: Final = 75
"""Exit code of a process whose job, or whose model's lock, another has."""


class JobTakenError(PreconditionError):
    """A job that another process took, and brings to its end."""


@contextmanager
def job_lock(examples: ExamplesStore, model: str) -> Iterator[None]:
    """Hold the lock of a model's retrain.

    Raises:
        JobTakenError: another process holds it.
    """
    with locked_or_none(examples.locks / f"{model}.lock") as taken:
        if not taken:
            raise JobTakenError(f"model {model!r} is being retrained by another process: wait for it")
        yield


def settle_interrupted(
    examples: ExamplesStore, store: ModelStore, before: RetrainJob, why: str, *, again: bool = True
) -> RetrainJob | None:
    """Settle an interrupted job: back to PENDING once, or final.

    A job whose last act is in the store's history, the promotion or the refusal, SUCCEEDED or was REFUSED, although it
    could not say so any more. Of several who find a job interrupted, exactly one settles it.

    Args:
        examples: holds the jobs.
        store: holds the history.
        before: the job as it was when its process was started, or when it was found RUNNING.
        why: what is known of the process's end.
        again: whether a second attempt might end otherwise.

    Returns:
        The job as it stands now, to be started by the caller if PENDING; None if its process lives, or it was settled
        elsewhere.
    """
    with locked_or_none(examples.locks / f"{before.model}.lock") as taken:
        job = examples.jobs.get(before.id)
        if job.state.is_final or job.interrupted != before.interrupted:
            return None
        if job.state is JobState.RUNNING and not taken:
            return None
        how = f"interrupted in phase {job.phase or 'start'!r}" if job.state is JobState.RUNNING else "could not start"
        is_settled = _settle_by_history(examples, store, job)
        is_settled = is_settled or (again and examples.jobs.put_back(job, f"{how}: {why}"))
        if not is_settled and examples.jobs.get(job.id).cancel_requested:
            examples.jobs.finish(job.id, JobState.CANCELLED, "cancelled")
        elif not is_settled:
            examples.jobs.finish(job.id, JobState.FAILED, f"{how}: {why}")
    return examples.jobs.get(job.id)


def fail(examples: ExamplesStore, store: ModelStore, job: RetrainJob, why: str) -> None:
    """End a job as its history has it, else FAILED.

    One that was asked to end is CANCELLED.
    """
    if _settle_by_history(examples, store, job):
        return
    if examples.jobs.get(job.id).cancel_requested:
        examples.jobs.finish(job.id, JobState.CANCELLED, "cancelled")
    else:
        examples.jobs.finish(job.id, JobState.FAILED, why)


def _settle_by_history(examples: ExamplesStore, store: ModelStore, job: RetrainJob) -> bool:
    """Settle a job by its last act in the history, if any."""
    for entry in reversed(store.history(job.model)):
        if entry.job != job.id:
            continue
        facts = {"version": entry.version, "verdict": store.verdict(job.model, entry.version)}
        if entry.event == "promote":
            return examples.jobs.finish(job.id, JobState.SUCCEEDED, f"version {entry.version} serves", **facts)
        if entry.refusal:
            return examples.jobs.finish(job.id, JobState.REFUSED, entry.refusal, **facts)
    return False
