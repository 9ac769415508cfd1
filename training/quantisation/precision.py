"""Choice of a run's precision, fp32 or int8.

It is made by training images that the heads were not fitted on; the holdout only measures the outcome.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import onnx

from regraft.errors import ArtifactError, TrainingError
from regraft.gate_limits import MAX_DROP
from regraft.image.spec import Crop, ImageSpec
from regraft.model.artifact import FloatArray, backbone_digest
from regraft.progress import Progress
from regraft.stores.images import ImageFile
from training.backbones.cache import ExportedBackbone
from training.data.crops import readable_crops
from training.data.samples import samples_of
from training.evaluation.latency import ms_per_crop
from training.evaluation.paired_comparison import PairedComparison, compare
from training.head.calibrate import HeldBack, calibrate_head, cross_fitted
from training.head.features import Features
from training.quantisation.quantise import CALIBRATION_CROPS, quantise, this_cpu
from training.settings import TrainSettings
from training.strategies.context import Candidate, Context, embed_dataset, with_note
from training.strategies.probe import probe_on

MIN_SPEED_UP: Final = 1.1
"""Less is not worth a second kind of arithmetic, and could be the noise of the clock."""
NONSENSE_DROP: Final = 5.0
"""Percentage points of accuracy after which int8 is refused even to those who insist."""
_SURE: Final = 2.0


@dataclass(frozen=True)
class Decision:
    """Precision decided on, and the reason as the end of a sentence."""

    choice: Literal["fp32", "int8", "refused"]
    why: str


def decide(asked: Literal["int8", "auto"], compared: PairedComparison | None, speed_up: float) -> Decision:
    """Decide between fp32 and int8.

    Args:
        asked: ``int8`` insists; only nonsense is refused to it.
        compared: fp32 with int8 on training images that neither head was fitted on; None where there are none.
        speed_up: how many times faster int8 is on this machine.
    """
    if compared is not None and _drop(compared) > _allowed(compared, NONSENSE_DROP):
        return Decision("fp32" if asked == "auto" else "refused", f"it loses {100 * _drop(compared):.1f} points")
    if asked == "int8":
        return Decision("int8", "it was asked for")
    objection = _objection(compared, speed_up)
    return Decision("fp32", objection) if objection else Decision("int8", "it is faster, and nothing is lost")


def in_precision(candidate: Candidate, context: Context) -> Candidate:
    """Return a candidate in the precision asked for.

    Raises:
        ArtifactError: ``--precision int8``, and the backbone cannot be quantised.
        TrainingError: ``--precision int8``, and what it gives is nonsense.
    """
    asked = context.settings.precision
    if asked == "fp32" or candidate.backbone.precision == "int8":
        return candidate
    crops = _calibration_crops(candidate, context)
    try:
        int8 = requantised(candidate, crops, context)
    except ArtifactError as error:
        if asked == "int8":
            raise ArtifactError(f"--precision int8: {error}") from error
        return with_note(candidate, context, f"fp32 is kept: {error}.")
    return choose(candidate, int8, crops, context)


def requantised(fp32: Candidate, crops: Sequence[Crop], context: Context) -> Candidate:
    """Quantise a candidate's backbone on crops, and finish its head on that.

    Raises:
        ArtifactError: the backbone cannot be quantised.
    """
    with context.watch.stage("quantise"):
        backbone = quantised(fp32.backbone, crops, context.progress)
    return _refit_on(backbone, fp32, context)


def choose(fp32: Candidate, int8: Candidate, crops: Sequence[Crop], context: Context) -> Candidate:
    """Measure both candidates, and return the one that `decide` says.

    Raises:
        TrainingError: int8 is insisted on, and nonsense.
    """
    asked = context.settings.precision
    assert asked != "fp32"  # there would be nothing to choose
    with context.watch.stage("measure"):
        graphs = [each.backbone.model.SerializeToString() for each in (fp32, int8)]
        before_ms, after_ms = ms_per_crop(graphs, crops, context.progress)
    compared = _on_unseen(fp32, int8)
    decision = decide(asked, compared, before_ms / after_ms)
    figures = _figures(compared, before_ms, after_ms)
    if decision.choice == "refused":
        raise TrainingError(
            f"--precision int8: {figures}: {decision.why}, more than {NONSENSE_DROP:g}. "
            "Train with --precision fp32, or with another backbone"
        )
    chosen = int8 if decision.choice == "int8" else fp32
    return with_note(chosen, context, f"{figures}. {decision.choice} is kept: {decision.why}.")


def quantised(backbone: ExportedBackbone, crops: Sequence[Crop], progress: Progress) -> ExportedBackbone:
    """Return the backbone in int8, for CPUs like this one.

    Raises:
        ArtifactError: see `training.quantisation.quantise.quantise`.
    """
    progress("quantise", 0, 1)
    graph = quantise(backbone.model.SerializeToString(), crops, cpu=this_cpu())
    model = onnx.load_model_from_string(graph)
    progress("quantise", 1, 1)
    published = backbone.published.unmeasured()
    return replace(backbone, model=model, digest=backbone_digest(model), precision="int8", published=published)


def calibration_crops(files: Sequence[tuple[str, ImageFile]], spec: ImageSpec) -> list[Crop]:
    """Return the crops of the first readable pictures, enough to calibrate with.

    The files are in the order of their hashes, which is as good as drawn by lot.
    """
    return [crop for _, crop in islice(readable_crops(files, spec), CALIBRATION_CROPS)]


def _calibration_crops(candidate: Candidate, context: Context) -> list[Crop]:
    with context.watch.stage("quantise"):
        files = [(sample.sha256, sample.path) for sample in samples_of(candidate.dataset, holdout=False)]
        return calibration_crops(files, candidate.backbone.spec)


def _refit_on(backbone: ExportedBackbone, candidate: Candidate, context: Context) -> Candidate:
    """Finish the head on the same backbone in another precision."""
    if candidate.strategy == "probe":
        probed = probe_on(backbone, candidate.dataset, context)
        measured = probed.findings
        validation = candidate.findings.cross_validation if candidate.finetuning_record else measured.cross_validation
        findings = replace(candidate.findings, cross_validation=validation, extra=measured.extra)
        return replace(probed, findings=findings, finetuning_record=candidate.finetuning_record)
    dataset, features, _ = embed_dataset(candidate.dataset, backbone, context)
    tune = np.zeros(int((~features.is_holdout).sum()), np.bool_)
    tune[candidate.fitted.unseen.rows] = True
    head, temperature = candidate.fitted.head, np.float32(candidate.fitted.temperature)
    weight, bias = head.weight * temperature, head.bias * temperature
    fitted = calibrate_head(weight, bias, features, _held_back(weight, bias, features.train(), tune, context.settings))
    return replace(candidate, dataset=dataset, backbone=backbone, features=features, fitted=fitted)


def _held_back(
    weight: FloatArray, bias: FloatArray, train: Features, rows: npt.NDArray[np.bool_], settings: TrainSettings
) -> HeldBack | None:
    if not rows.any():
        return None
    truth, counts, group = train.label_index[rows], train.weight[rows], train.group[rows]
    logits = np.asarray(train.embedding[rows] @ weight.T + bias, np.float32)
    answers = cross_fitted(logits[None], truth, counts, counts, settings.seed, group)
    return HeldBack(rows, logits, answers, counts, None)


def _on_unseen(fp32: Candidate, int8: Candidate) -> PairedComparison | None:
    rows = int8.fitted.unseen.rows
    if not len(rows):
        return None
    return compare(_answers(fp32), _answers(int8), int8.features.train().label_index[rows])


def _answers(candidate: Candidate) -> FloatArray:
    """Return probabilities of images that were not learned from."""
    unseen = candidate.fitted.unseen
    if candidate.strategy == "probe":
        return unseen.probabilities
    return candidate.fitted.head.probabilities(candidate.features.train().embedding[unseen.rows])


def _objection(compared: PairedComparison | None, speed_up: float) -> str:
    """Return the reason against int8, empty where there is none."""
    if speed_up < MIN_SPEED_UP:
        return "it is not faster here"
    if compared is None:
        return "no images could be set aside to compare by"
    if _drop(compared) > _allowed(compared, MAX_DROP):
        return f"it loses {100 * _drop(compared):.1f} points"
    if compared.gain < -_SURE * compared.error:
        return f"its log loss is surely higher, by {-compared.gain:.3f} (standard error {compared.error:.3f})"
    return ""


def _drop(compared: PairedComparison) -> float:
    return compared.accuracy[0] - compared.accuracy[1]


def _allowed(compared: PairedComparison, points: float) -> float:
    """Return the share that may be lost, one image always."""
    return max(points / 100, 1 / compared.images) + 1e-9


def _figures(compared: PairedComparison | None, before_ms: float, after_ms: float) -> str:
    speed = (
        f"int8 takes {after_ms:.2f} ms an image on one thread here, fp32 {before_ms:.2f} ({before_ms / after_ms:.2f} x)"
    )
    if compared is None:
        return speed
    return (
        f"{speed}; on {compared.images} training images that the heads were not fitted on it is right on "
        f"{compared.accuracy[1]:.1%}, fp32 on {compared.accuracy[0]:.1%}"
    )
