"""A retrain job whose process is gone: who holds a model's job, and how an orphaned one goes on or ends.

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


def settle_interrupted(
    examples: ExamplesStore, store: ModelStore, before: RetrainJob, why: str, *, again: bool = True
) -> RetrainJob | None:
    """Put a job whose process is gone back to PENDING, once, or bring it to its final state.

    A job whose last act is in the store's history, the promotion or the refusal, SUCCEEDED or was REFUSED, although it
    could not say so any more. Of several who find a job interrupted, exactly one settles it.

    Args:
        examples: holds the jobs.
        store: holds the history.
        before: the job as it was when its process was started, or when it was found RUNNING.
        why: what is known of the process's end.
        again: whether a second attempt might end otherwise.

    Returns:
        The job as it stands now, which whoever is given it as PENDING has to start; None if its process lives, or
        somebody else settled it.
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


def _settle_by_history(examples: ExamplesStore, store: ModelStore, job: RetrainJob) -> bool:
    """Bring a job whose last act is in the history to the state that this act says; False where none is."""
    for entry in reversed(store.history(job.model)):
        if entry.job != job.id:
            continue
        if entry.event == "promote":
            message = f"version {entry.version} serves"
            return examples.jobs.finish(job.id, JobState.SUCCEEDED, message, version=entry.version)
        if entry.why.startswith(REFUSED_BECAUSE):
            message = entry.why.removeprefix(REFUSED_BECAUSE)
            return examples.jobs.finish(job.id, JobState.REFUSED, message, version=entry.version)
    return False
