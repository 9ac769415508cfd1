"""Job of a full training run, on the examples of a model.

It is ``regraft refresh`` without a folder.

Its checkpoint outlives the process, so that a second attempt goes on from there.
"""

import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from regraft.errors import InvalidRequestError
from regraft.files import cache_folder
from regraft.gate_limits import GateLimits
from regraft.model.card import Strategy
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import LearningPoint, RetrainJob
from regraft.stores.models import ModelStore
from training.evaluation.findings import Epoch
from training.job_progress import JobProgress
from training.retrain.data import embeddings_of
from training.retrain.outcome import Published, conclude, published_before, reason, who
from training.retrain.refresh import Trained, network_of, publish_trained, train_anew
from training.settings import TrainSettings
from training.strategies.context import CHECKPOINT_FILE, Context
from training.train import RUNS_FOLDER, coordinator_for, keep_backbone_of
from training.versions.read import key_here
from training.versions.source import settle_source

_EXAMPLES: Final = Path("examples")
"""What the card and the report call the data; pictures are called by their hashes."""
_FOLDER: Final = "job-"
_PHASES: Final = {
    "read": (0.0, 0.01),
    "scan": (0.01, 0.02),
    "export": (0.02, 0.04),
    "embed": (0.04, 0.25),
    "fit": (0.25, 0.3),
    "mirror": (0.3, 0.32),
    "finetune": (0.32, 0.8),
    "finetune on all": (0.8, 0.93),
    "check": (0.93, 0.94),
    "layers": (0.94, 0.95),
    "quantise": (0.95, 0.96),
    "judge": (0.96, 0.97),
    "occlusion": (0.97, 0.98),
    "publish": (0.98, 1.0),
}

log = logging.getLogger("regraft.retrain")


class _JobListener:
    """Listener that writes a run's progress and curve to its job."""

    def __init__(self, examples: ExamplesStore, job: RetrainJob) -> None:
        self.progress = JobProgress(examples, job, _PHASES)
        self._jobs, self._id = examples.jobs, job.id

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """Write a point of the curve."""
        loss, *tune = (
            None if math.isnan(value) else value for value in (epoch.train_loss, epoch.tune_loss, epoch.tune_accuracy)
        )
        self._jobs.add_point(self._id, LearningPoint(epoch.number, epochs, loss, *tune))

    def note(self, text: str) -> None:
        """Write a decision to the log."""
        log.info("job %s: %s", self._id, text)


def train_on_examples(store: ModelStore, examples: ExamplesStore, job: RetrainJob) -> None:
    """Train and publish a version for a job, through the gate.

    Raises:
        RegraftError: whatever keeps it from being trained.
        JobCancelledError: somebody asked for the job's end.
    """
    listener = _JobListener(examples, job)
    listener.progress("read", 0, 1)
    if published := published_before(store, job):  # by a first attempt, which was interrupted before the promotion
        conclude(store, examples, job, published)
        return
    with _run_folder(store, job) as runs:
        settings = settle_source(settings_of(store, job))
        context = Context(settings, cache_folder(), runs, listener)
        try:
            published = _publish(store, examples, job, context)
        except InvalidRequestError as error:
            if not settings.resume:
                raise
            log.warning("job %s begins anew: %s", job.id, error)  # there are other pictures by now, say
            anew = replace(context, settings=replace(settings, resume=False))
            published = _publish(store, examples, job, anew)
    conclude(store, examples, job, published)


def settings_of(store: ModelStore, job: RetrainJob) -> TrainSettings:
    """Return the settings of a job's run, by default the champion's.

    Raises:
        InvalidRequestError: what it asks for makes no sense.
        PreconditionError: there is no champion.
    """
    asked = job.settings
    network = network_of(store, job.model, backbone=asked.get("backbone", ""), precision=asked.get("precision", ""))
    strategy: Strategy = asked.get("strategy") or "probe"
    is_resumed = strategy != "probe" and bool(job.interrupted) and (_folder(store, job) / CHECKPOINT_FILE).exists()
    return TrainSettings(
        _EXAMPLES,
        job.model,
        store.root,
        strategy=strategy,
        changes={"epochs": asked["epochs"]} if "epochs" in asked else {},
        resume=is_resumed,
        tensorboard=False,
        **asdict(network),
    )


def _train(store: ModelStore, examples: ExamplesStore, job: RetrainJob, context: Context) -> Trained:
    with coordinator_for(context.settings) as coordinator:
        champion = store.champion(job.model)
        if champion is not None:
            told = f"competing with version {champion}"
            examples.jobs.report(job.id, "read", 0.0, told, champion=champion)
        return train_anew(store, examples, context, coordinator, GateLimits.of(job.settings), data=None)


def _publish(store: ModelStore, examples: ExamplesStore, job: RetrainJob, context: Context) -> Published:
    """Train and publish the version, blessed or not, and its embeddings.

    They go to the examples, where servers look for them.
    """
    trained = _train(store, examples, job, context)
    context.progress("publish", 0, 1)
    challenger = trained.challenger
    examples.embeddings.put(key_here(challenger.card), embeddings_of(challenger.features))
    why = "; ".join([reason(job, trained.verdict), *trained.remarks])
    version = publish_trained(store, trained, context, who=who(job), why=why, job=job.id)
    keep_backbone_of(trained.candidate, context, f"{job.model}:{version}")
    return Published(version, trained.champion.version, why, trained.verdict.to_dict())


def _folder(store: ModelStore, job: RetrainJob) -> Path:
    return store.root / RUNS_FOLDER / job.model / f"{_FOLDER}{job.id}"


@contextmanager
def _run_folder(store: ModelStore, job: RetrainJob) -> Iterator[Path]:
    """Yield the folder of a job's checkpoint.

    It is left only by an interruption.
    """
    folder = _folder(store, job)
    for other in folder.parent.glob(f"{_FOLDER}*"):  # of jobs that were interrupted once too often
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    try:
        yield folder
    except KeyboardInterrupt:  # `TrainingStopped` is one: a second attempt goes on from here
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
