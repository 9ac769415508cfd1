"""The story of a head retrain: one job, run as its own process, on old and new embeddings together. No torch.

The server starts ``python -m training.retrain --job ID``; cron starts the very same module with ``--name``. It meets
the server only in the model store and the examples store.
"""

import argparse
import getpass
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from regraft import artifact
from regraft.artifact import Artifact
from regraft.embeddings import EmbeddingKey
from regraft.errors import PreconditionError, RegraftError
from regraft.examples import FOLDER, ExamplesStore, is_holdout
from regraft.interrupted import job_lock, settle_interrupted
from regraft.retrain_jobs import JobCancelledError, JobState, RetrainJob
from regraft.store import FEATURES_FILE, MODEL_FILE, ModelStore
from training.features import Embedder, Features, assemble, load_features
from training.gate import MAX_CLASS_DROP, MAX_DROP, Limits, Verdict, judge
from training.head import fit
from training.version import Challenger, build, prove_on_files, publish

_NICENESS = 10
_REPORT_EVERY_S = 0.3
_PHASES = {"read": (0.0, 0.05), "embed": (0.05, 0.6), "fit": (0.6, 0.9), "judge": (0.9, 0.95), "publish": (0.95, 1.0)}

log = logging.getLogger("regraft.retrain")


@dataclass(frozen=True)
class _Champion:
    version: int
    artifact: Artifact
    features: Features

    @property
    def key(self) -> EmbeddingKey:
        return EmbeddingKey(self.artifact.card.backbone.digest, self.artifact.card.image.digest())


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


def run_job(store: ModelStore, examples: ExamplesStore, job_id: str) -> RetrainJob:
    """Run one PENDING job to its final state and return it.

    Raises:
        PreconditionError: the job was claimed, cancelled or finished by somebody else.
        NotFoundError: there is no such job.
    """
    job = examples.jobs.get(job_id)
    with job_lock(examples, job.model):
        if not examples.jobs.claim(job_id):
            raise PreconditionError(f"retrain job {job_id} is {examples.jobs.get(job_id).state}, not PENDING")
        try:
            _retrain(store, examples, job)
        except JobCancelledError:
            examples.jobs.finish(job_id, JobState.CANCELLED, "cancelled")
        except RegraftError as error:
            examples.jobs.finish(job_id, JobState.FAILED, str(error))
        except Exception:
            log.exception("retrain job %s", job_id)
            examples.jobs.finish(job_id, JobState.FAILED, "internal error; its log has the traceback")
            raise
    return examples.jobs.get(job_id)


def _retrain(store: ModelStore, examples: ExamplesStore, job: RetrainJob) -> None:
    progress = _Reporter(examples, job)
    progress("read", 0, 1)
    champion = _read_champion(store, job.model)
    examples.jobs.report(job.id, "read", 0.0, f"competing with version {champion.version}", champion=champion.version)
    rows = merge_rows(champion.features, [(example.sha256, example.label) for example in examples.list(job.model)])
    features = _embed(champion, rows, examples, progress)
    if _rows_of(features) == _rows_of(champion.features):
        message = f"nothing new: version {champion.version} was fitted on the very same images and labels"
        examples.jobs.finish(job.id, JobState.REFUSED, message)
        return
    _check_every_class(features)
    fitted = fit(features, progress)
    progress("judge", 0, 1)
    verdict = _judge(champion, features, fitted.head, job)
    progress("publish", 0, 1)
    card = champion.artifact.card
    challenger = build(
        artifact.ungraft(champion.artifact.model),
        fitted,
        features,
        name=job.model,
        origin=(card.backbone.name, card.backbone.weights),
        spec=card.image,
        strategy="retrain",
        settings=job.settings,
        seed=card.seed,
        parent_version=champion.version,
        precision=card.backbone.precision,
    )
    _prove_on_examples(challenger, fitted.head, features, examples)
    _conclude(store, examples, job, challenger, verdict)


def merge_rows(old: Features, new: list[tuple[str, str]]) -> list[tuple[str, str, bool]]:
    """Merge a version's images with the examples received since.

    A picture that the version knows keeps its split, so that the holdout stays frozen, and takes the newer label.

    Returns:
        (image hash, label, is holdout), ordered by hash.
    """
    merged = {sha256: (label, held) for sha256, label, held in _rows_of(old)}
    for sha256, label in new:
        held = merged[sha256][1] if sha256 in merged else is_holdout(sha256)
        merged[sha256] = (label, held)
    return [(sha256, label, held) for sha256, (label, held) in sorted(merged.items())]


def _rows_of(features: Features) -> list[tuple[str, str, bool]]:
    labels = [features.labels[index] for index in features.label_index]
    return list(zip(features.sha256, labels, [bool(held) for held in features.is_holdout], strict=True))


def _read_champion(store: ModelStore, model: str) -> _Champion:
    version = store.champion(model)
    if version is None:
        raise PreconditionError(f"model {model!r} has no champion to improve on: train and promote a version first")
    folder = store.folder(model, version)
    return _Champion(version, artifact.read(folder / MODEL_FILE), load_features(folder / FEATURES_FILE))


def _embed(
    champion: _Champion, rows: list[tuple[str, str, bool]], examples: ExamplesStore, progress: _Reporter
) -> Features:
    """Put the embeddings together: the version's own, those cached while serving, and what is still missing."""
    known = dict(zip(champion.features.sha256, champion.features.embedding, strict=True))
    wanted = {name: examples.image_path(name) for name, _, _ in rows if name not in known}
    fresh = examples.embeddings.get(champion.key, wanted)
    missing = {name: path for name, path in wanted.items() if name not in fresh}
    if missing:  # a session is only opened where there is something to run
        card = champion.artifact.card
        embedder = Embedder.open(
            champion.artifact.model.SerializeToString(), card.image, champion.key, card.backbone.precision
        )
        computed, failures = embedder.embed(missing, examples.embeddings, progress)
        fresh |= computed
        for name, reason in failures.items():
            log.warning("example %s is left out: %s", name, reason)
    new_labels = sorted({label for _, label, _ in rows} - set(champion.features.labels))
    return assemble((*champion.features.labels, *new_labels), rows, known | fresh)


def _check_every_class(features: Features) -> None:
    train = features.train()
    for index, label in enumerate(features.labels):
        count = int((train.label_index == index).sum())
        if count < 2:
            raise PreconditionError(f"class {label!r} has {count} image(s) to train on, need 2: label more of it")


def _judge(champion: _Champion, features: Features, head: artifact.Head, job: RetrainJob) -> Verdict:
    holdout = features.holdout()
    limits = Limits(job.settings.get("max_drop", MAX_DROP), job.settings.get("max_class_drop", MAX_CLASS_DROP))
    return judge(
        champion.artifact.head.probabilities(holdout.embedding),
        head.probabilities(holdout.embedding),
        holdout.label_index,
        features.labels,
        limits,
    )


def _prove_on_examples(
    challenger: Challenger, head: artifact.Head, features: Features, examples: ExamplesStore
) -> None:
    """Run the finished file on a few pictures whose bytes are at hand."""
    at_hand = (row for row, name in enumerate(features.sha256) if examples.image_path(name).exists())
    prove_on_files(challenger, head, examples.image_path, at_hand)


def _conclude(
    store: ModelStore, examples: ExamplesStore, job: RetrainJob, challenger: Challenger, verdict: Verdict
) -> None:
    """Publish the version either way, so that a refusal can be looked into; promote it only when blessed."""
    champion = challenger.card.parent_version
    why = f"retrain: holdout accuracy {verdict.champion_accuracy:.4f} -> {verdict.challenger_accuracy:.4f}"
    who = job.requested_by or getpass.getuser()
    refusal = "; ".join(verdict.reasons)
    version = publish(
        store, challenger, left_out=[], who=who, why=why if verdict.blessed else f"refused: {refusal}", job=job.id
    )
    facts = {"version": version, "verdict": verdict.to_dict()}
    if not verdict.blessed:
        examples.jobs.finish(job.id, JobState.REFUSED, refusal, **facts)
        return
    # Last chance to stop: from the promotion on, the job has succeeded.
    examples.jobs.report(job.id, "publish", 0.99, f"version {version} is blessed", version=version)
    store.promote(job.model, version, who=who, why=why, job=job.id, expected=champion)
    examples.jobs.finish(job.id, JobState.SUCCEEDED, f"version {version} is the champion; {why}", **facts)


def main(arguments: list[str] | None = None) -> int:
    """Run a job from the command line; 0 when the new head is champion or nothing had to change, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m training.retrain", description="Retrain the head of a model.")
    parser.add_argument("--store", type=Path, required=True, help="the model store")
    parser.add_argument("--examples", type=Path, help=f"the examples store (default: {FOLDER} inside the model store)")
    parser.add_argument(
        "--database", default="", help="URL of the examples' database (default: SQLite inside the store)"
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--job", help="run this job, which somebody entered")
    which.add_argument("--name", help="enter a job for this model, and run it")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.nice(_NICENESS)  # whoever answers requests on this machine comes first
    store = ModelStore(options.store)
    examples = ExamplesStore(options.examples or options.store / FOLDER, options.database)
    try:
        settle_interrupted(examples, store, "its process ended")
        if options.name:
            store.versions(options.name)  # refuses what can be no name
        job_id = options.job or examples.jobs.create(options.name, {}, getpass.getuser()).id
        job = run_job(store, examples, job_id)
    except RegraftError as error:
        log.error("%s", error)
        return 1
    finally:
        examples.close()
    log.info("job %s of %s: %s: %s", job.id, job.model, job.state, job.message)
    return 0 if job.state in (JobState.SUCCEEDED, JobState.REFUSED) else 1


if __name__ == "__main__":
    sys.exit(main())
