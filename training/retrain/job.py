"""Job of a head retrain, on old and new embeddings. No torch.

It meets the server only in the model store and the examples store.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np

from regraft.errors import RegraftError
from regraft.gate_limits import GateLimits
from regraft.model import artifact
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobCancelledError, JobKind, JobState, RetrainJob
from regraft.stores.models import ModelStore
from regraft.stores.recovery import JobTakenError, fail, job_lock
from training.backbones.cache import backbone_of
from training.evaluation.diagnose import thumbnails
from training.evaluation.findings import Findings
from training.gate.anchor import Anchor
from training.head.features import Features
from training.head.fit import FittedHead
from training.job_progress import JobProgress
from training.retrain.data import RetrainData, fit_on, gather, rows_of
from training.retrain.evidence import Terms, anchor_of, answered_rightly, judge_first_version, judge_retrained
from training.retrain.outcome import Published, conclude, published_before, reason, who
from training.retrain.quarantine import Quarantined, quarantine
from training.retrain.resource_limits import limited
from training.strategies.provenance import network_recipe
from training.versions.ground import NoVersion, read_ground
from training.versions.publish import Challenger, Provenance, build, prove_on_files, publish
from training.versions.read import StoredVersion, first_labels

MINUTES: Final = 60.0
_PHASES: Final = {
    "read": (0.0, 0.05),
    "embed": (0.05, 0.5),
    "views": (0.5, 0.6),
    "fit": (0.6, 0.8),
    "check": (0.8, 0.9),
    "judge": (0.9, 0.95),
    "publish": (0.95, 1.0),
}

log = logging.getLogger("regraft.retrain")


def run_job(
    store: ModelStore, examples: ExamplesStore, job_id: str, minutes: float = MINUTES, memory_mb: int = 0
) -> RetrainJob:
    """Run one PENDING job to its final state and return it.

    Time and memory are limited by `limited`.

    Raises:
        JobTakenError: the job was claimed, cancelled or finished by somebody else, or the model's lock is held.
        NotFoundError: there is no such job.
    """
    job = examples.jobs.get(job_id)
    with job_lock(examples, job.model):
        if not examples.jobs.claim(job_id):
            raise JobTakenError(f"retrain job {job_id} is {examples.jobs.get(job_id).state}, not PENDING")
        try:
            with limited(minutes, memory_mb, before_exit=partial(fail, examples, store, job)):
                _work_of(job.kind)(store, examples, job)
        except JobCancelledError:
            examples.jobs.finish(job_id, JobState.CANCELLED, "cancelled")
        except RegraftError as error:
            fail(examples, store, job, str(error))
        except MemoryError:
            fail(examples, store, job, "it needs more memory than there is")
        except Exception:
            log.exception("retrain job %s", job_id)
            examples.jobs.finish(job_id, JobState.FAILED, "internal error; its log has the traceback")
            raise
    return examples.jobs.get(job_id)


def _work_of(kind: JobKind) -> Callable[[ModelStore, ExamplesStore, RetrainJob], None]:
    if kind is JobKind.RETRAIN:
        return _retrain
    from training.train_job import train_on_examples  # noqa: PLC0415 - it takes a second, which a head's retrain spares

    return train_on_examples


def _retrain(store: ModelStore, examples: ExamplesStore, job: RetrainJob) -> None:
    progress = JobProgress(examples, job, _PHASES)
    progress("read", 0, 1)
    if published := published_before(store, job):  # by a first attempt, which was interrupted before the promotion
        conclude(store, examples, job, published)
        return
    champion = read_ground(store, job.model, examples.label_changes)
    if isinstance(champion, NoVersion):
        _make_first(champion, store, examples, job, progress)
        return
    examples.jobs.report(job.id, "read", 0.0, f"competing with version {champion.version}", champion=champion.version)
    data = gather(champion, examples, job.model, progress)
    if _finish_without_news(champion, data, examples, job):
        return
    fitted = fit_on(champion, data, progress)
    progress("check", 0, 1)
    if wrong := quarantine(
        champion, data, fitted, examples, job.model, first_labels(store, job.model, examples.label_changes)
    ):
        data = gather(champion, examples, job.model, progress.as_phase("check"), wrong)
        if _finish_without_news(champion, data, examples, job):
            return
        fitted = fit_on(champion, data, progress.as_phase("check"))
    progress("judge", 0, 1)
    quarantined = Quarantined(wrong, len(examples.labels.in_force(job.model, quarantined=True)))
    anchor = anchor_of(champion, store, examples, job.model, data.features)
    terms = Terms(GateLimits.of(job.settings), quarantined=quarantined, anchor=anchor)
    findings = judge_retrained(champion, data, fitted, store.golden(job.model), terms)
    progress("publish", 0, 1)
    anchor = anchor.updated(answered_rightly(anchor, data.features, fitted.head))
    challenger = replace(_build(champion, data, fitted, job), anchor=anchor)
    _prove_on_examples(challenger, fitted.head, data.features, examples)
    conclude(store, examples, job, _publish(store, examples, job, challenger, data, findings))


def _make_first(
    base: NoVersion, store: ModelStore, examples: ExamplesStore, job: RetrainJob, progress: JobProgress
) -> None:
    """Make a model's first version, of its examples alone."""
    data = gather(base, examples, job.model, progress)
    fitted = fit_on(base, data, progress)
    progress("judge", 0, 1)
    findings = judge_first_version(base, data, fitted, store.golden(job.model), GateLimits.of(job.settings))
    progress("publish", 0, 1)
    provenance = Provenance(
        job.model,
        "probe",
        {"data": "examples", **base.settings, **job.settings},
        base.seed,
        {
            "strategy": "probe",
            "published": "probe",
            **network_recipe(base.backbone),
            **base.settings,
            "seed": base.seed,
        },
        labels_as_of=base.labels_as_of,
    )
    features = data.features
    right = fitted.head.probabilities(features.embedding).argmax(axis=1) == features.label_index
    anchor = Anchor.begin(features, right, np.ones(len(right), np.bool_))
    challenger = replace(build(base.backbone, fitted, features, provenance), anchor=anchor)
    _prove_on_examples(challenger, fitted.head, features, examples)
    conclude(store, examples, job, _publish(store, examples, job, challenger, data, findings))


def _finish_without_news(champion: StoredVersion, data: RetrainData, examples: ExamplesStore, job: RetrainJob) -> bool:
    """End a job that has nothing new; True where it did."""
    if rows_of(data.features) != rows_of(champion.features) or not champion.is_in_one_form:
        return False
    message = f"nothing new: version {champion.version} was fitted on the very same images and labels"
    aside = len(examples.labels.in_force(job.model, quarantined=True))
    remark = [f"{aside} labels are in quarantine: see `regraft examples list --quarantined`"] if aside else []
    examples.jobs.finish(job.id, JobState.REFUSED, "; ".join([message, *remark, *data.remarks]))
    return True


def _build(champion: StoredVersion, data: RetrainData, fitted: FittedHead, job: RetrainJob) -> Challenger:
    card = champion.artifact.card
    provenance = Provenance.of_refit(job.model, "retrain", card, champion.version, job.settings)
    provenance = replace(provenance, labels_as_of=champion.labels_as_of)
    return build(backbone_of(champion.artifact), fitted, data.features, provenance, additional=data.additional)


def _prove_on_examples(
    challenger: Challenger, head: artifact.Head, features: Features, examples: ExamplesStore
) -> None:
    """Prove the file on a few pictures that are at hand."""
    at_hand = (row for row, name in enumerate(features.sha256) if examples.image_file(name).exists())
    prove_on_files(challenger, head, examples.image_file, at_hand)


def _publish(
    store: ModelStore,
    examples: ExamplesStore,
    job: RetrainJob,
    challenger: Challenger,
    data: RetrainData,
    findings: Findings,
) -> Published:
    """Publish the version, blessed or not."""
    verdict = findings.verdict
    assert verdict is not None  # it was judged just now
    names = {*data.features.sha256, *(picture.sha256 for picture in findings.doubted)}
    pictures = {sha256: examples.image_file(sha256) for sha256 in names}
    why = "; ".join([reason(job, verdict), *data.remarks])
    version = publish(
        store,
        challenger,
        left_out=data.left_out,
        who=who(job),
        why=why,
        job=job.id,
        findings=findings,
        thumbnails=thumbnails(findings, pictures),
    )
    return Published(version, challenger.card.parent_version, why, verdict.to_dict())
