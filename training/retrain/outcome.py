"""Outcome of a retrain, in the job and in the history."""

import logging
from dataclasses import dataclass
from typing import Any

from regraft.errors import ArtifactError, RegraftError
from regraft.machine import user_name
from regraft.model import artifact
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobState, RetrainJob
from regraft.stores.lifecycle.history import REFUSED_BECAUSE
from regraft.stores.models import MODEL_FILE, REPORT_FILE, REPORT_JSON_FILE, GateMode, ModelStore
from training.gate.verdict import Verdict
from training.versions.publish import promote

log = logging.getLogger("regraft.retrain")


@dataclass(frozen=True)
class Published:
    """A version that a job published.

    Attributes:
        version: its number.
        champion: the version that it was judged against; None of a first one.
        why: the reason in the history.
        verdict: see `Verdict.to_dict`.
    """

    version: int
    champion: int | None
    why: str
    verdict: dict[str, Any]


def published_before(store: ModelStore, job: RetrainJob) -> Published | None:
    """Return the whole version that an interrupted job published, if any."""
    for entry in store.history(job.model):
        if entry.job != job.id:
            continue
        try:
            card = artifact.read(store.folder(job.model, entry.version) / MODEL_FILE).card
            verdict = store.verdict(job.model, entry.version)
            if verdict is None:
                raise ArtifactError(f"{REPORT_JSON_FILE}: has no verdict")
            return Published(entry.version, card.parent_version, entry.why, verdict)
        except (RegraftError, OSError) as error:
            log.warning("version %d of %s is damaged, another one is published: %r", entry.version, job.model, error)
    return None


def conclude(store: ModelStore, examples: ExamplesStore, job: RetrainJob, published: Published) -> None:
    """Promote or refuse a version, as the gate and its mode say.

    Raises:
        ArtifactError: its file is damaged.
        PreconditionError: the champion is no longer the one that it was judged against.
        JobCancelledError: somebody asked for the job's end.
    """
    gate, version = mode(job), published.version
    facts = {"version": version, "verdict": published.verdict}
    if not published.verdict["blessed"] and gate is not GateMode.OFF:
        message = published.why.removeprefix(REFUSED_BECAUSE)
        if published.verdict.get("suspects"):
            message += f"; likely wrong labels are in {store.folder(job.model, version) / REPORT_FILE}"
        examples.jobs.finish(job.id, JobState.REFUSED, message, **facts)
        return
    if gate is GateMode.MANUAL:
        waits = f"version {version} is blessed and waits: regraft models promote {version} --name {job.model}"
        examples.jobs.finish(job.id, JobState.SUCCEEDED, f"{waits}; {published.why}", **facts)
        return
    # Last chance to stop: from the promotion on, the job has succeeded.
    examples.jobs.report(job.id, "publish", 0.99, f"version {version} goes live", version=version)
    promote(store, job.model, version, who=who(job), why=published.why, job=job.id, expected=published.champion or 0)
    examples.jobs.finish(job.id, JobState.SUCCEEDED, f"version {version} is the champion; {published.why}", **facts)


def reason(job: RetrainJob, verdict: Verdict) -> str:
    """Return the reason for the history."""
    return reason_of(job.kind, verdict, mode(job))


def reason_of(what: str, verdict: Verdict, gate: GateMode) -> str:
    """Return the reason for the history: command, gain or refusal."""
    refusal = "; ".join(verdict.reasons)
    if verdict.blessed:
        return f"{what}: {verdict.gain}"
    if gate is GateMode.OFF:
        return f"{what}: {verdict.gain}; the gate was off, and would have refused it: {refusal}"
    return REFUSED_BECAUSE + refusal


def goes_live(verdict: Verdict, gate: GateMode) -> bool:
    """Decide whether a version is promoted at once."""
    return gate is GateMode.OFF or (verdict.blessed and gate is GateMode.AUTO)


def mode(job: RetrainJob) -> GateMode:
    """Return the mode of the gate."""
    return GateMode(job.settings.get("gate", GateMode.AUTO))


def who(job: RetrainJob) -> str:
    """Return the name for the history."""
    return job.requested_by or user_name()
