"""The strategies that train the backbone, each as a whole, on networks so small that a run takes seconds."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.cli.training.train import show_result
from regraft.errors import ArtifactError, DatasetError, InvalidRequestError, TrainingError
from regraft.files import cache_folder
from regraft.model import artifact
from regraft.progress import Progress
from regraft.stores.models import REPORT_FILE, REPORT_JSON_FILE, ModelStore
from tests.tiny import picture
from tests.training.conftest import CRAYONS, crayons
from training.data.dataset import scan
from training.evaluation.findings import Epoch
from training.settings import TrainSettings
from training.strategies.context import Context, SilentListener
from training.strategies.finetuning.coordinator import Coordinator, Origin, lead
from training.strategies.finetuning.loop import Job, OnEpoch, TrainedClassifier
from training.strategies.finetuning.signals import TrainingStopped
from training.strategies.finetuning.strategy import scratch
from training.train import RUNS_FOLDER, TrainResult, train

pytestmark = pytest.mark.usefixtures("one_torch_thread", "resnet_at_hand")

BACKBONE = "timm/test_resnet"
LABELS = CRAYONS
QUICK = {"epochs": 2, "batch": 8, "backbone_lr": 1e-3, "head_lr": 1e-2}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve pictures of each of three colours."""
    return crayons(tmp_path / "crayons", 12)


def settings(data: Path, strategy: str = "finetune", **others: object) -> TrainSettings:
    changes = {} if strategy in ("probe", "auto") else QUICK
    given = {"store": data.parent / "models", "backbone": BACKBONE, "weights": "none", "changes": changes, **others}
    return TrainSettings(data, strategy=strategy, **given)  # type: ignore[arg-type]  # fields by name, checked there


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Train once from scratch, without interruption, for comparison with others."""
    return train(settings(crayons(tmp_path_factory.mktemp("unbroken") / "crayons", 12), "scratch"))


@pytest.fixture(scope="module")
def beaten(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Fine-tune once where that cannot pay: the probe makes no mistake."""
    return train(settings(crayons(tmp_path_factory.mktemp("beaten") / "crayons", 12)))


class StopsAfter(SilentListener):
    """Asks for an end like Ctrl-C, once so many steps of fine-tuning are done."""

    def __init__(self, steps: int, stage: str = "finetune") -> None:
        self._steps, self._stage = steps, stage
        self.epochs: list[Epoch] = []

    def progress(self, stage: str, done: int, _total: int) -> None:
        if stage == self._stage and done == self._steps:
            signal.raise_signal(signal.SIGINT)

    def epoch(self, epoch: Epoch, _epochs: int) -> None:
        self.epochs.append(epoch)


def same_model(one: TrainResult, other: TrainResult) -> bool:
    return (one.card.backbone.digest, one.card.head_digest) == (other.card.backbone.digest, other.card.head_digest)


def test_a_fine_tuning_that_is_insisted_on_publishes_a_backbone_of_its_own_that_agrees_with_torch(data: Path) -> None:
    made = train(settings(data, publish="finetuned"))

    found, tuning, card = made.findings, made.findings.tuning, made.card
    recipe = card.recipe
    assert (card.strategy, card.backbone.weights) == ("finetune", "random, seed 0, fine-tuned")
    assert card.choice is not None
    assert card.choice.published == "finetune"
    assert "it was asked for" in card.choice.reason
    assert [epoch.number for epoch in found.epochs] == [0, 1, 2]
    assert found.agreement is not None
    assert found.agreement.images == card.metrics.images if card.metrics else False
    assert found.agreement.max_logit_difference < 1e-3
    assert found.agreement.same_answer == 1
    assert tuning is not None
    assert tuning.images == card.train_images  # those that were set aside at first too
    assert tuning.set_aside == card.settings["tune_images"] > 0
    assert tuning.holdout_accuracy == card.choice.candidates[1].holdout_accuracy
    assert tuning.holdout_accuracy is not None
    assert tuning.holdout_accuracy > 0.8
    assert (recipe["strategy"], recipe["published"], recipe["init"]) == ("finetune", "finetune", "head")
    assert recipe["weights"] == "random, seed 0"  # those that it began with
    assert (recipe["optimizer"], recipe["lr"], recipe["head_lr"]) == ("adamw", 1e-3, 1e-2)
    assert (recipe["batch"], recipe["accumulate"], recipe["epochs"]) == (8, 1, 2)
    by_rule = {"weight_decay": 0.02, "label_smoothing": 0.1, "layer_decay": 0.8, "mixup": 0.0, "cutmix": 0.0}
    assert {name: recipe[name] for name in by_rule} == by_rule
    assert (recipe["freeze"], recipe["frozen_stages"]) == ("0.4", tuning.frozen)
    assert (recipe["augment"], recipe["mirror"]) == ("full", True)
    assert (recipe["epochs_run"], recipe["epochs_kept"]) == (2, tuning.epochs)
    assert (recipe["schedule"], recipe["device"]) == (tuning.schedule, tuning.device)


def test_where_fine_tuning_cannot_pay_the_probe_that_it_began_with_is_published(
    data: Path, beaten: TrainResult
) -> None:
    probed, choice = train(settings(data, "probe")), beaten.card.choice

    assert same_model(beaten, probed)
    assert beaten.card.strategy == "probe"
    assert choice is not None
    assert choice.published == "probe"
    assert [candidate.strategy for candidate in choice.candidates] == ["probe", "finetune"]
    assert choice.candidates[0].holdout_accuracy == probed.to_dict()["accuracy"]
    assert "so the probe is kept" in choice.reason
    recipe = beaten.card.recipe
    assert (recipe["strategy"], recipe["published"]) == ("finetune", "probe")
    assert (recipe["epochs_run"], recipe["epochs_kept"]) == (2, 0)
    assert not list((data.parent / "models" / ".runs").rglob("*.pt"))  # a finished run leaves no checkpoint


def test_what_a_fine_tuning_begins_with_is_epoch_0_and_is_the_probe(beaten: TrainResult) -> None:
    first, choice = beaten.findings.epochs[0], beaten.card.choice

    assert choice is not None
    assert [epoch.number for epoch in beaten.findings.epochs] == [0, 1, 2]
    assert first.tune_accuracy == pytest.approx(choice.candidates[0].accuracy)
    assert first.tune_loss == pytest.approx(choice.candidates[0].log_loss, rel=0.02, abs=1e-3)


def test_both_ways_and_the_reason_are_in_the_report_and_in_the_last_lines(
    beaten: TrainResult, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = beaten.card.choice
    assert choice is not None

    show_result(beaten.to_dict())

    shown = " ".join(capsys.readouterr().out.split())
    page = beaten.path.with_name(REPORT_FILE).read_text()
    report = json.loads(beaten.path.with_name(REPORT_JSON_FILE).read_text())
    assert report["card"]["recipe"] == beaten.card.recipe
    for name in ("weight decay", "label smoothing", "first lr", "frozen stages", "epochs kept", "torch version"):
        assert f"<td>{name}<td>" in page
    assert report["card"]["choice"] == choice.model_dump(mode="json")
    for text in (shown, page):
        assert "so the probe is kept" in text
        assert all(f"{candidate.log_loss:.3f}" in text for candidate in choice.candidates)


def test_from_scratch_nothing_is_frozen_and_no_probe_is_needed(data: Path) -> None:
    result = train(settings(data, "scratch"))

    assert result.card.strategy == "scratch"
    assert result.card.choice is None
    assert "there is no probe to begin with" in " ".join(result.findings.notes)
    assert not any(note.startswith("Frozen") for note in result.findings.notes)
    assert "embed" in result.stage_seconds
    assert "check" in result.stage_seconds
    assert (result.card.recipe["init"], result.card.recipe["frozen_stages"]) == ("random", 0)


def test_the_same_seed_gives_the_same_network_again(data: Path, unbroken: TrainResult) -> None:
    assert same_model(unbroken, train(settings(data, "scratch")))
    assert not same_model(unbroken, train(settings(data, "scratch", seed=1)))


@pytest.mark.parametrize(("steps", "stage"), [(2, "finetune"), (6, "finetune"), (2, "finetune on all")])
def test_an_interrupted_run_goes_on_to_the_very_same_result(
    data: Path, unbroken: TrainResult, steps: int, stage: str
) -> None:
    with pytest.raises(TrainingStopped, match="--resume"):
        train(settings(data, "scratch", name="broken"), StopsAfter(steps, stage))
    assert ModelStore(data.parent / "models").versions("broken") == []
    resumed = train(settings(data, "scratch", name="broken", resume=True))

    assert same_model(resumed, unbroken)
    assert [epoch.tune_loss for epoch in resumed.findings.epochs] == [e.tune_loss for e in unbroken.findings.epochs]


def test_a_checkpoint_of_other_settings_is_refused_by_their_names(data: Path) -> None:
    with pytest.raises(TrainingStopped):
        train(settings(data), StopsAfter(2))

    with pytest.raises(InvalidRequestError, match=r"--resume: .*batch was 8, now 4"):
        train(settings(data, resume=True, changes={**QUICK, "batch": 4}))


def test_nothing_to_resume_is_said(data: Path) -> None:
    with pytest.raises(InvalidRequestError, match="--resume: there is no checkpoint"):
        train(settings(data, resume=True))


def test_a_loss_that_is_no_number_names_the_pictures_and_what_to_do(data: Path) -> None:
    with pytest.raises(TrainingError, match=r"not a number any more in epoch \d, batch \d \(.*\.png.*smaller --lr"):
        train(settings(data, changes={**QUICK, "backbone_lr": 1e30, "head_lr": 1e30}))


def test_training_the_backbone_prepares_pictures_by_the_rule_that_was_asked_for(data: Path) -> None:
    result = train(settings(data, "scratch", resize="pad", changes={**QUICK, "epochs": 1}))

    card, agreement = artifact.read(result.path).card, result.findings.agreement
    assert (card.image.resize, card.image.resize_px) == ("pad", card.image.crop_px)
    assert agreement is not None
    assert agreement.same_answer == 1


class Stages(SilentListener):
    """Keeps the names of the stages that a run came to."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def progress(self, stage: str, _done: int, _total: int) -> None:
        self.begun.append(stage)


@pytest.mark.parametrize("strategy", ["finetune", "scratch", "auto"])
@pytest.mark.parametrize(
    ("freeze", "told"),
    [
        ("layer9", r"--freeze: no stage 'layer9'; a share such as 0.5, or one of: .*layer4"),
        ("1.5", "--freeze: 1.5 is not a share from 0 to 1"),
        ("nan", "--freeze: nan is not a share from 0 to 1"),
    ],
)
def test_a_wrong_freeze_is_refused_before_a_picture_is_read(data: Path, strategy: str, freeze: str, told: str) -> None:
    heard = Stages()

    with pytest.raises(InvalidRequestError, match=told):
        train(settings(data, strategy, changes={"freeze": freeze}), heard)

    assert heard.begun == []


def test_auto_keeps_the_probe_where_too_few_errors_are_left(data: Path) -> None:
    result = train(settings(data, "auto"))

    assert result.card.strategy == "probe"
    assert "so few errors are left" in " ".join(result.findings.notes)


def test_auto_does_not_begin_what_takes_too_long(data: Path) -> None:
    for number in range(12):  # wrong labels: errors that fine-tuning might hope to remove
        for label, other in zip(LABELS, LABELS[1:] + LABELS[:1], strict=True):
            (data / label / f"wrong{number}.png").write_bytes(picture(other, 100 + number, side_px=24))

    result = train(settings(data, "auto", max_minutes=0.0))

    assert result.card.strategy == "probe"
    assert "more than --max-minutes 0" in " ".join(result.findings.notes)


def test_cross_validation_repeats_the_strategy_for_every_fold(data: Path) -> None:
    result = train(settings(data, cv=2, changes={**QUICK, "epochs": 1}))

    assert result.findings.cross_validation is not None
    assert len(result.findings.cross_validation.folds) == 2


def test_more_folds_than_a_class_has_images_are_refused(data: Path) -> None:
    with pytest.raises(DatasetError, match="--cv 20: class"):
        train(settings(data, "probe", cv=20))


def test_a_source_classifier_that_is_not_there_is_said(data: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"--init source: .* without an ImageNet classifier"):
        train(settings(data, init="source"))


@pytest.mark.heavy
def test_two_processes_of_torchrun_give_what_one_gives(data: Path, beaten: TrainResult, tmp_path: Path) -> None:
    """The command is the same; the answers on the holdout are too, but for the order of additions."""
    flags = ["--strategy", "finetune", "--backbone", BACKBONE, "--weights", "none", "--epochs", "2", "--batch", "8"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += ["--no-python", str(Path(sys.executable).with_name("regraft"))]
    command += ["train", str(data), "--store", str(tmp_path / "both"), *flags, "--lr", "1e-3", "--no-tensorboard"]

    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]
    together = artifact.read(tmp_path / "both" / "crayons" / "1" / "model.onnx").card.choice
    alone = beaten.card.choice
    assert together is not None
    assert alone is not None
    for one, other in zip(together.candidates, alone.candidates, strict=True):
        assert one.log_loss == pytest.approx(other.log_loss, abs=0.02)
        assert (one.accuracy, one.holdout_accuracy) == (other.accuracy, other.holdout_accuracy)


class Branching(nn.Module):
    """A network that torch runs and cannot export: what it does hangs on the pictures' values."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the network's embeddings."""
        embedding: torch.Tensor = self.network(pictures if float(pictures.mean()) < 1e9 else -pictures)
        return embedding


class TrainsBranching(Coordinator):
    """Trains, and hands over what cannot be exported."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._tuner = coordinator

    def run_job(self, origin: Origin, job: Job, progress: Progress, on_epoch: OnEpoch) -> TrainedClassifier:
        """Train as any other."""
        tuned = self._tuner.run_job(origin, job, progress, on_epoch)
        return replace(tuned, backbone=replace(tuned.backbone, network=Branching(tuned.backbone.network)))


def test_a_trained_network_is_kept_whatever_fails_after_it_and_resume_goes_on_from_there(
    data: Path, unbroken: TrainResult
) -> None:
    given = settings(data, "scratch")
    context = Context(given, cache_folder(), given.store / RUNS_FOLDER / "crayons", SilentListener())
    with (
        lead() as coordinator,
        pytest.raises(ArtifactError, match=r"kept at .*checkpoint-whole\.pt: the same command with --resume"),
    ):
        scratch(scan(data), context, TrainsBranching(coordinator))
    listener = StopsAfter(0)

    resumed = train(replace(given, resume=True), listener)

    assert same_model(resumed, unbroken)
    assert listener.epochs == []  # nothing was trained again
