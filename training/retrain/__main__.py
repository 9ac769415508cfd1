"""Process of a head retrain, ``python -m training.retrain``.

A server starts it with ``--job ID``, cron with ``--name MODEL``.
"""

import argparse
import logging
import os
import sys
from contextlib import closing

from regraft.errors import InvalidRequestError, RegraftError
from regraft.machine import user_name
from regraft.stores.examples import ExamplesStore, open_examples
from regraft.stores.jobs import JobState, RetrainJob
from regraft.stores.models import GateMode, ModelStore
from regraft.stores.recovery import TAKEN, JobTakenError, settle_interrupted
from training.child_process import add_database_flag, add_limit_flags, add_store_flags, begin
from training.retrain.job import MINUTES, run_job

log = logging.getLogger("regraft.retrain")


def _settle_killed_jobs(store: ModelStore, examples: ExamplesStore, model: str) -> None:
    """Settle a model's jobs that a killed process left RUNNING."""
    for job in examples.jobs.list(model, JobState.RUNNING):
        settle_interrupted(examples, store, job, "its process was killed")


def _waiting_or_new_job(examples: ExamplesStore, model: str, gate: str) -> str:
    """Return a model's waiting job, or a new one, by id.

    Raises:
        InvalidRequestError: there is no such mode.
    """
    modes = [mode.value for mode in GateMode]
    if gate not in modes:
        raise InvalidRequestError(f"REGRAFT_GATE: {gate!r} is none of {', '.join(modes)}")
    for job in examples.jobs.list(model, JobState.PENDING):
        return job.id
    return examples.jobs.create(model, {"gate": gate}, user_name()).id


def _run(options: argparse.Namespace) -> RetrainJob:
    """Run the job that the command line names, or asks for.

    Raises:
        RegraftError: whatever keeps it from being run.
    """
    store = ModelStore(options.store)
    with closing(open_examples(options.store, options.examples, options.database)) as examples:
        if options.name:
            store.versions(options.name)  # refuses what can be no name
        _settle_killed_jobs(store, examples, options.name or examples.jobs.get(options.job).model)
        job_id = options.job or _waiting_or_new_job(examples, options.name, options.gate)
        return run_job(store, examples, job_id, options.minutes, options.memory_mb)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.retrain", description="Retrain the head of a model.")
    add_store_flags(parser)
    add_database_flag(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--job", help="run this job, which somebody entered")
    which.add_argument("--name", help="enter a job for this model, unless one waits, and run it")
    parser.add_argument(
        "--gate",
        choices=[mode.value for mode in GateMode],
        default=os.environ.get("REGRAFT_GATE", GateMode.AUTO.value),
        help="of a job that --name enters: whether a version that the gate blessed goes live (auto) or waits for a "
        "person (manual); with off it goes live whatever the gate says (default: REGRAFT_GATE, or auto)",
    )
    add_limit_flags(parser, MINUTES)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a job from the command line.

    Returns:
        The exit code: 0 when the new head is champion or nothing had to change, `TAKEN` where ``--job`` names one that
        another process has, 1 otherwise.
    """
    options = _parser().parse_args(arguments)
    begin(options)
    try:
        job = _run(options)
    except RegraftError as error:
        log.error("%s", " ".join(str(error).split()))  # a database's own text may have several lines
        return TAKEN if options.job and isinstance(error, JobTakenError) else 1
    log.info("job %s of %s: %s: %s", job.id, job.model, job.state, job.message)
    return 0 if job.state in (JobState.SUCCEEDED, JobState.REFUSED) else 1


if __name__ == "__main__":
    sys.exit(main())
