"""The story of a head retrain: one job, run as its own process, on old and new embeddings together. No torch.

The server starts ``python -m training.retrain --job ID``; cron starts the very same module with ``--name``. It
meets the server only in the model store and the examples store.
"""

import argparse
import logging
import os
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from regraft.client.proxies import spare_loopback
from regraft.errors import InvalidRequestError, RegraftError
from regraft.gate_limits import GateLimits
from regraft.logs import FORMATS, LEVELS, write_log
from regraft.model import artifact
from regraft.progress import Progress
from regraft.stores.examples import FOLDER, ExamplesStore, open_examples
from regraft.stores.jobs import JobCancelledError, JobState, RetrainJob
from regraft.stores.models import FEATURES_FILE, GateMode, ModelStore
from regraft.stores.recovery import TAKEN, JobTakenError, fail, job_lock, settle_interrupted
from regraft.user import user_name
from training.backbones.cache import backbone_of
from training.evaluation.diagnose import thumbnails
from training.evaluation.findings import Findings
from training.head.features import Features
from training.head.fit import FittedHead
from training.head.refit import REFITTED_WITH, refit
from training.retrain.data import Champion, RetrainData, gather, read_champion, rows_of
from training.retrain.evidence import Terms, anchor_of, answered_rightly, judge_retrained
from training.retrain.outcome import Published, conclude, published_before, reason, who
from training.retrain.quarantine import Quarantined, quarantine
from training.retrain.resource_limits import step_back, within
from training.versions.publish import Challenger, build, prove_on_files, publish

_REPORT_EVERY_S: Final = 0.3
_MINUTES: Final = 60.0
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


class _Reporter:
    """Writes a job's progress to its row, a few times a second at most."""

    def __init__(self, examples: ExamplesStore, job: RetrainJob) -> None:
        self._jobs, self._id, self._last_s, self._phase = examples.jobs, job.id, 0.0, ""

    def __call__(self, phase: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        if phase == self._phase and now_s - self._last_s < _REPORT_EVERY_S:
            return
        self._phase, self._last_s = phase, now_s
        start, end = _PHASES[phase]
        message = f"{phase}: {done} of {total}" if total > 1 else phase
        self._jobs.report(self._id, phase, start + (end - start) * done / max(total, 1), message)

    def within(self, phase: str) -> Progress:
        """Report steps of any stage as steps of one phase, so that the fraction never goes back."""
        return lambda _, done, total: self(phase, done, total)


def run_job(
    store: ModelStore, examples: ExamplesStore, job_id: str, minutes: float = _MINUTES, memory_mb: int = 0
) -> RetrainJob:
    """Run one PENDING job, within the limits of `within`, to its final state and return it.

    Raises:
        JobTakenError: the job was claimed, cancelled or finished by somebody else, or the model's lock is held.
        NotFoundError: there is no such job.
    """
    job = examples.jobs.get(job_id)
    with job_lock(examples, job.model):
        if not examples.jobs.claim(job_id):
            raise JobTakenError(f"retrain job {job_id} is {examples.jobs.get(job_id).state}, not PENDING")
        try:
            with within(minutes, memory_mb, last_words=partial(fail, examples, store, job)):
                _retrain(store, examples, job)
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


def _retrain(store: ModelStore, examples: ExamplesStore, job: RetrainJob) -> None:
    progress = _Reporter(examples, job)
    progress("read", 0, 1)
    if made := published_before(store, job):  # by a first attempt, which was interrupted before the promotion
        conclude(store, examples, job, made)
        return
    champion = read_champion(store, job.model)
    examples.jobs.report(job.id, "read", 0.0, f"competing with version {champion.version}", champion=champion.version)
    data = gather(champion, examples, job.model, progress)
    if _finished_without_news(champion, data, examples, job):
        return
    fitted = refit(champion.artifact.card, data.features, data.further, progress, missing=data.missing)
    progress("check", 0, 1)
    if wrong := quarantine(champion, data, fitted, examples, job.model):
        data = gather(champion, examples, job.model, progress.within("check"), wrong)
        if _finished_without_news(champion, data, examples, job):
            return
        fitted = refit(
            champion.artifact.card, data.features, data.further, progress.within("check"), missing=data.missing
        )
    progress("judge", 0, 1)
    aside = Quarantined(wrong, len(examples.list(job.model, quarantined=True)))
    anchor = anchor_of(champion, store.folder(job.model, champion.version) / FEATURES_FILE, examples, job.model)
    anchor = anchor.among(data.features)
    terms = Terms(GateLimits.of(job.settings), quarantined=aside, anchor=anchor)
    findings = judge_retrained(champion, data, fitted, store.golden(job.model), terms)
    progress("publish", 0, 1)
    anchor = anchor.moved(answered_rightly(anchor, data.features, fitted.head))
    challenger = replace(_build(champion, data, fitted, job), anchor=anchor)
    _prove_on_examples(challenger, fitted.head, data.features, examples)
    conclude(store, examples, job, _publish(store, examples, job, challenger, data, findings))


def _finished_without_news(champion: Champion, data: RetrainData, examples: ExamplesStore, job: RetrainJob) -> bool:
    """End a job that has nothing to learn from, and tell whether it has."""
    if rows_of(data.features) != rows_of(champion.features) or not champion.is_in_one_form:
        return False
    message = f"nothing new: version {champion.version} was fitted on the very same images and labels"
    aside = len(examples.list(job.model, quarantined=True))
    remark = [f"{aside} labels are in quarantine: see `regraft examples list --quarantined`"] if aside else []
    examples.jobs.finish(job.id, JobState.REFUSED, "; ".join([message, *remark, *data.remarks]))
    return True


def _build(champion: Champion, data: RetrainData, fitted: FittedHead, job: RetrainJob) -> Challenger:
    card = champion.artifact.card
    return build(
        backbone_of(champion.artifact),
        fitted,
        data.features,
        name=job.model,
        strategy="retrain",
        settings={**{name: card.settings[name] for name in REFITTED_WITH if name in card.settings}, **job.settings},
        seed=card.seed,
        recipe=card.recipe,
        parent_version=champion.version,
        further=data.further,
    )


def _prove_on_examples(
    challenger: Challenger, head: artifact.Head, features: Features, examples: ExamplesStore
) -> None:
    """Run the finished file on a few pictures whose bytes are at hand."""
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
    """Publish the version, blessed or not, so that a refusal can be looked into."""
    verdict, champion = findings.verdict, challenger.card.parent_version
    assert verdict is not None  # it was judged just now
    assert champion is not None  # a retrain has one to compete with
    pictures = {picture.sha256: examples.image_file(picture.sha256) for picture in findings.doubted}
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
    return Published(version, champion, why, verdict.to_dict())


def _settle_before(store: ModelStore, examples: ExamplesStore, model: str) -> None:
    """Put back a model's job that a process left behind, or bring it to its end."""
    for job in examples.jobs.list(model, JobState.RUNNING):
        settle_interrupted(examples, store, job, "its process was killed")


def _waiting_or_new(examples: ExamplesStore, model: str, gate: str) -> str:
    """Return the job of a model that waits, perhaps since its server ended, or a new one in this mode of the gate.

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
        _settle_before(store, examples, options.name or examples.jobs.get(options.job).model)
        job_id = options.job or _waiting_or_new(examples, options.name, options.gate)
        return run_job(store, examples, job_id, options.minutes, options.memory_mb)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.retrain", description="Retrain the head of a model.")
    parser.add_argument("--store", type=Path, required=True, help="the model store")
    parser.add_argument(
        "--examples",
        default=os.environ.get("REGRAFT_EXAMPLES", ""),
        help=f"the examples: a folder, or a URL (default: REGRAFT_EXAMPLES, or {FOLDER} inside the model store)",
    )
    parser.add_argument(
        "--database",
        default=os.environ.get("REGRAFT_DATABASE", ""),
        help="URL of the examples' database (default: REGRAFT_DATABASE, or SQLite inside the store)",
    )
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
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="the longest that it may take (default: 60)")
    parser.add_argument("--cpus", type=int, default=0, help="how many CPUs it may use (default: all)")
    parser.add_argument("--memory-mb", type=int, default=0, help="how much memory it may have (default: any)")
    for flag, choices, usual in (("format", FORMATS, "text"), ("level", LEVELS, "info")):
        default = os.environ.get(f"REGRAFT_LOG_{flag.upper()}", usual)
        parser.add_argument(f"--log-{flag}", choices=choices, default=default, help="of the log (default: %(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a job from the command line.

    Returns:
        The exit code: 0 when the new head is champion or nothing had to change, `TAKEN` where ``--job`` names one that
        another process has, 1 otherwise.
    """
    options = _parser().parse_args(arguments)
    write_log(options.log_format, options.log_level)
    step_back(options.cpus)
    spare_loopback()
    try:
        job = _run(options)
    except RegraftError as error:
        log.error("%s", " ".join(str(error).split()))  # a database's own text may have several lines
        return TAKEN if options.job and isinstance(error, JobTakenError) else 1
    log.info("job %s of %s: %s: %s", job.id, job.model, job.state, job.message)
    return 0 if job.state in (JobState.SUCCEEDED, JobState.REFUSED) else 1
