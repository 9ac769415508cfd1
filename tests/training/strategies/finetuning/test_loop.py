import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from regraft.errors import TrainingError
from regraft.label_rules import image_hash
from regraft.progress import Progress, silent
from tests.tiny import SPEC, picture
from tests.training.networks import tiny_torch_backbone
from training.backbones.build import PretrainedBackbone
from training.data.samples import Sample
from training.head.logistic import log_loss
from training.strategies.finetuning.distributed import Processes
from training.strategies.finetuning.loop import Job, TrainedClassifier, embed_samples, run_job
from training.strategies.finetuning.recipe import recipe_for
from training.strategies.finetuning.signals import TrainingStopped

pytestmark = pytest.mark.usefixtures("one_torch_thread")

CPU = torch.device("cpu")
COLOURS = ("blue", "red")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    folder = tmp_path_factory.mktemp("pictures")
    found = []
    for number in range(16):
        data = picture(COLOURS[number % 2], number)
        path = folder / f"{number}.png"
        path.write_bytes(data)
        found.append(Sample(path, image_hash(data), number % 2))
    return tuple(found)


def job_of(samples: tuple[Sample, ...], checkpoint: Path | None = None, *, resume: bool = False, **changes: Any) -> Job:  # noqa: ANN401 - fields of a recipe
    recipe = recipe_for("finetune", len(samples), {"epochs": 3, **changes})
    return Job(2, None, samples[:12], samples[12:], recipe, 0, {}, checkpoint, resume)


def run(job: Job, progress: Progress = silent) -> TrainedClassifier:
    return run_job(tiny_torch_backbone(), job, Processes(0, 1, CPU), progress)


def stop_after(step: int) -> Progress:
    """Return a listener that presses Ctrl-C after a step."""

    def progress(_stage: str, done: int, _total: int) -> None:
        if done == step:
            signal.raise_signal(signal.SIGINT)

    return progress


# Columns: changes to the recipe, the step at which somebody presses Ctrl-C, and the step after which the run stops.
WISHES: dict[str, tuple[dict[str, Any], int, int]] = {
    "between two batches": ({"batch": 4}, 4, 4),
    "at the end of an epoch": ({"batch": 4}, 3, 3),
    "with one batch an epoch": ({"batch": 16}, 1, 1),
    "among steps that are added up": ({"batch": 3, "accumulate": 2}, 1, 2),
    "with whole epochs added up": ({"batch": 4, "accumulate": 5}, 1, 3),
}


@pytest.mark.parametrize("which", WISHES)
def test_a_run_that_was_stopped_anywhere_goes_on_to_the_same_end(
    samples: tuple[Sample, ...], tmp_path: Path, which: str
) -> None:
    changes, pressed, stopped = WISHES[which]
    path = tmp_path / "checkpoint.pt"
    straight = run(job_of(samples, **changes))

    with pytest.raises(TrainingStopped, match=rf"stopped after {stopped} of .*; .*checkpoint\.pt has all of it"):
        run(job_of(samples, path, **changes), stop_after(pressed))
    resumed = run(job_of(samples, path, resume=True, **changes))

    assert np.array_equal(resumed.weight, straight.weight)
    assert np.array_equal(resumed.bias, straight.bias)
    one, other = (tuned.backbone.network.state_dict() for tuned in (resumed, straight))
    assert not [name for name in one if not torch.equal(one[name], other[name])]
    assert [epoch.tune_loss for epoch in resumed.epochs] == [epoch.tune_loss for epoch in straight.epochs]


def test_a_run_that_is_over_anyway_is_not_stopped(samples: tuple[Sample, ...]) -> None:
    assert len(run(job_of(samples, batch=4), stop_after(9)).epochs) == 3


@pytest.mark.parametrize(
    ("processes", "batch", "complaint"),
    [
        (7, 16, "12 images are too few for 7 processes: use fewer"),
        (2, 1, "batches of 1 images are too small for 2 processes: use a larger --batch"),
        (5, 5, "batches of 4 images are too small for 5 processes"),
    ],
)
def test_more_processes_than_pictures_in_a_batch_are_refused(
    samples: tuple[Sample, ...], processes: int, batch: int, complaint: str
) -> None:
    with pytest.raises(TrainingError, match=complaint):
        run_job(tiny_torch_backbone(), job_of(samples, batch=batch), Processes(0, processes, CPU))


# Nothing learns at a rate of 0, so the first epoch stays the best one and patience alone decides.
@pytest.mark.parametrize(("small_epochs", "epochs"), [(0, 2), (1, 2), (3, 4)])
def test_patience_begins_after_the_small_epochs(samples: tuple[Sample, ...], small_epochs: int, epochs: int) -> None:
    job = job_of(samples, epochs=6, patience=1, small_epochs=small_epochs, head_lr=0.0, backbone_lr=0.0)

    assert len(run(job).epochs) == epochs


def test_a_run_ends_after_the_epochs_that_were_found_best(samples: tuple[Sample, ...]) -> None:
    job = replace(job_of(samples, epochs=6, batch=4), tune=())

    short, whole = run(replace(job, stop_after=2)), run(job)

    assert len(short.epochs) == short.best_epoch == 2
    # Of the same schedule, so that two epochs mean what they meant in the run that found them best.
    rates = [[(epoch.learning_rate, epoch.backbone_rate) for epoch in tuned.epochs[:2]] for tuned in (short, whole)]
    assert rates[0] == rates[1]


def test_epochs_are_told_apart_by_what_pictures_weigh(samples: tuple[Sample, ...]) -> None:
    job = job_of(samples, batch=4)
    weighed = replace(job, tune=tuple(replace(sample, weight=1 + 8 * sample.label_index) for sample in job.tune))

    tuned = run(weighed)

    labels, weights = (
        np.array([getattr(sample, name) for sample in weighed.tune]) for name in ("label_index", "weight")
    )
    assert tuned.tune_logits.shape == (len(tuned.epochs), 4, 2)
    for epoch, logits in zip(tuned.epochs, tuned.tune_logits.astype(np.float64), strict=True):
        assert epoch.tune_loss == pytest.approx(log_loss(logits, labels, weights))
        assert epoch.tune_loss != pytest.approx(log_loss(logits, labels, np.ones(4)), rel=1e-4)
    assert tuned.best_epoch == 1 + int(np.argmin([epoch.tune_loss for epoch in tuned.epochs]))


def test_an_epoch_says_how_right_and_how_fast_it_was_and_at_which_rates(samples: tuple[Sample, ...]) -> None:
    tuned = run(job_of(samples, batch=4, head_lr=1e-2, backbone_lr=1e-3, freeze="0", layer_decay=0.5))

    last = tuned.epochs[-1]
    assert last.train_accuracy * 12 == pytest.approx(round(last.train_accuracy * 12))
    assert last.backbone_rate == pytest.approx(last.learning_rate / 10)
    assert last.images_per_s > 0
    assert tuned.first_rate is not None
    assert tuned.first_rate < 1e-3
    assert "CPU" in tuned.device


def test_where_only_the_head_learns_no_stage_has_a_rate(samples: tuple[Sample, ...]) -> None:
    assert run(job_of(samples, freeze="1")).first_rate is None


def test_a_wish_to_stop_in_the_last_step_counts_where_another_run_follows(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    job = replace(job_of(samples, tmp_path / "checkpoint.pt", batch=4), is_followed=True)

    with pytest.raises(TrainingStopped, match="stopped after 9 of 9 steps"):
        run(job, stop_after(9))


def test_embeddings_come_in_the_order_of_the_pictures(samples: tuple[Sample, ...]) -> None:
    backbone = tiny_torch_backbone()

    whole = embed_samples(backbone, samples)
    alone = np.concatenate([embed_samples(backbone, [sample]) for sample in samples])

    np.testing.assert_allclose(whole, alone, atol=1e-5)


def test_a_network_of_one_size_sees_no_small_pictures(samples: tuple[Sample, ...]) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SPEC.crop_px**2, 4)).eval()
    rigid = PretrainedBackbone(network, SPEC, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))

    tuned = run_job(rigid, job_of(samples, small_epochs=2, freeze="0"), Processes(0, 1, CPU))

    assert len(tuned.epochs) == 3
