"""A training as a job, on the examples alone."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from regraft.label_rules import image_hash
from regraft.stores.database.engine import open_database, sqlite_url
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobKind, JobState, LearningPoint, RetrainJob, RetrainJobs
from regraft.stores.models import ModelStore
from regraft.stores.recovery import settle_interrupted
from tests.tiny import picture
from tests.training.conftest import CRAYONS, crayons
from training.retrain.job import run_job
from training.settings import TrainSettings
from training.train import RUNS_FOLDER, train
from training.versions.pictures import ExamplesPlace
from training.versions.read import StoredVersion, read_champion

pytestmark = pytest.mark.usefixtures("one_torch_thread", "resnet_at_hand")

MODEL = "crayons"
TWO_EPOCHS = {"gate": "off", "strategy": "finetune", "epochs": 2}


@pytest.fixture(scope="module")
def first_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose model was trained on a folder that is gone."""
    root = tmp_path_factory.mktemp("first")
    data, place = crayons(root / MODEL, 12), ExamplesPlace(root / "models")
    settings = TrainSettings(data, MODEL, place.store, "timm/test_resnet", "none", tensorboard=False)
    train(settings, examples=place, keep=True)
    shutil.rmtree(data)
    return place.store


@pytest.fixture
def store(first_store: Path, tmp_path: Path) -> ModelStore:
    return ModelStore(Path(shutil.copytree(first_store, tmp_path / "models")))


def run(store: ModelStore, examples: ExamplesStore, settings: dict[str, object]) -> RetrainJob:
    return run_job(store, examples, examples.jobs.create(MODEL, settings, "Ann", kind=JobKind.TRAIN).id)


def labels_of(version: StoredVersion) -> dict[str, str]:
    features = version.features
    return {name: features.labels[row] for name, row in zip(features.sha256, features.label_index, strict=True)}


def test_a_job_fine_tunes_on_what_was_kept_and_sent_and_tells_its_curve(
    store: ModelStore, examples: ExamplesStore
) -> None:
    first = read_champion(store, MODEL)
    sent = [picture("grey", number) for number in range(8)]
    for data in sent:
        examples.add(MODEL, data, "grey")

    job = run(store, examples, {**TWO_EPOCHS, "strategy": "scratch"})

    assert (job.state, job.champion, job.version, job.fraction) == (JobState.SUCCEEDED, 1, 2, 1.0), job.message
    assert [point.epoch for point in job.points] == [1, 2]
    assert all(point.epochs == 2 and point.loss is not None and point.loss > 0 for point in job.points)
    champion = read_champion(store, MODEL)
    assert champion.artifact.card.strategy == "scratch"
    assert champion.features.labels == (*CRAYONS, "grey")
    assert labels_of(champion) == {**labels_of(first), **dict.fromkeys(map(image_hash, sent), "grey")}
    sides = dict(zip(champion.features.sha256, champion.features.is_holdout, strict=True))
    for sha256, is_holdout in zip(first.features.sha256, first.features.is_holdout, strict=True):
        assert sides[sha256] == is_holdout
    entry = store.history(MODEL)[-1]
    assert (entry.event, entry.version, entry.who, entry.job) == ("promote", 2, "Ann", job.id)
    assert entry.why.startswith("train: ")
    assert examples.labels.without_embedding(MODEL, champion.key, 1) == {}, "no server embeds them once more"
    assert list((store.root / RUNS_FOLDER / MODEL).glob("job-*")) == []


def test_a_job_without_the_pictures_fails_and_says_who_brings_them(store: ModelStore, examples: ExamplesStore) -> None:
    first = read_champion(store, MODEL).features.sha256[0]
    examples.image_file(first).unlink()

    job = run(store, examples, {})

    assert job.state is JobState.FAILED
    assert "1 of 36 pictures of 'crayons' are not among the examples" in job.message
    assert "`regraft refresh DATA --name crayons`" in job.message
    assert first in job.message
    assert store.champion(MODEL) == 1


class StoppedAfterAnEpoch(RetrainJobs):
    """Jobs whose process is asked to end after its first epoch."""

    told: list[int]

    def add_point(self, job_id: str, point: LearningPoint) -> None:
        """Keep the point, and end the process as a stopping server does."""
        super().add_point(job_id, point)
        self.told.append(point.epoch)
        if self.told == [0, 1]:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_job_that_was_interrupted_goes_on_from_its_last_epoch(store: ModelStore, examples: ExamplesStore) -> None:
    engine = open_database(sqlite_url(store.root / ".examples" / "examples.sqlite"))
    jobs = examples.jobs = StoppedAfterAnEpoch(engine)
    jobs.told = []
    job = jobs.create(MODEL, {**TWO_EPOCHS, "epochs": 3}, "Ann", kind=JobKind.TRAIN)

    with pytest.raises(KeyboardInterrupt):
        run_job(store, examples, job.id)
    assert jobs.get(job.id).state is JobState.RUNNING
    settled = settle_interrupted(examples, store, job, "its server was stopped")
    assert settled is not None
    assert settled.state is JobState.PENDING
    end = run_job(store, examples, job.id)
    engine.dispose()

    assert end.state is JobState.SUCCEEDED, end.message
    assert jobs.told == [0, 1, 2, 3], "no epoch was learned twice"
    assert [point.epoch for point in end.points] == [0, 1, 2, 3]
    assert end.points[0].loss is None
    assert end.points[0].accuracy is not None


def test_a_job_goes_on_from_the_backbone_it_names_and_one_that_nobody_has_fails(
    store: ModelStore, examples: ExamplesStore
) -> None:
    failed = run(store, examples, {"backbone": "resnet_of_nowhere"})
    examples.add(MODEL, picture("red", 500), "red")
    job = run(store, examples, {"gate": "manual", "backbone": "store:crayons:1"})

    assert failed.state is JobState.FAILED
    assert "resnet_of_nowhere" in failed.message
    assert (job.state, job.version) == (JobState.SUCCEEDED, 2), job.message
    assert job.points == (), "a probe has no epochs"
    assert store.champion(MODEL) == 1, "it waits for a person"
