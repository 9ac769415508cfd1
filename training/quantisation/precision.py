"""fp32, int8 or auto: whether the backbone that a strategy made calculates in 8-bit integers.

What is asked is asked of training images that the heads were not fitted on; the holdout only measures the outcome.
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
class Verdict:
    """Whether int8 is taken, and the reason as the end of a sentence."""

    choice: Literal["fp32", "int8", "refused"]
    why: str


def decide(asked: Literal["int8", "auto"], compared: PairedComparison | None, speed_up: float) -> Verdict:
    """Decide whether int8 is taken.

    Args:
        asked: ``int8`` insists; only nonsense is refused to it.
        compared: fp32 with int8 on training images that neither head was fitted on; None where there are none.
        speed_up: how many times faster int8 is on this machine.
    """
    if compared is not None and _drop(compared) > _allowed(compared, NONSENSE_DROP):
        return Verdict("fp32" if asked == "auto" else "refused", f"it loses {100 * _drop(compared):.1f} points")
    if asked == "int8":
        return Verdict("int8", "it was asked for")
    objection = _objection(compared, speed_up)
    return Verdict("fp32", objection) if objection else Verdict("int8", "it is faster, and nothing is lost")


def in_precision(made: Candidate, context: Context) -> Candidate:
    """Return what a strategy made in the precision that was asked for, with a note that says why.

    Raises:
        ArtifactError: ``--precision int8``, and the backbone cannot be quantised.
        TrainingError: ``--precision int8``, and what it gives is nonsense.
    """
    asked = context.settings.precision
    if asked == "fp32" or made.backbone.precision == "int8":
        return made
    try:
        with context.watch.stage("quantise"):
            crops = _calibration_crops(made)
            backbone = quantised(made.backbone, crops, context.progress)
    except ArtifactError as error:
        if asked == "int8":
            raise ArtifactError(f"--precision int8: {error}") from error
        return with_note(made, context, f"fp32 is kept: {error}.")
    int8 = _on(backbone, made, context)
    with context.watch.stage("measure"):
        graphs = [each.model.SerializeToString() for each in (made.backbone, backbone)]
        before_ms, after_ms = ms_per_crop(graphs, crops, context.progress)
    compared = _on_unseen(made, int8)
    verdict = decide(asked, compared, before_ms / after_ms)
    found = _figures(compared, before_ms, after_ms)
    if verdict.choice == "refused":
        raise TrainingError(
            f"--precision int8: {found}: {verdict.why}, more than {NONSENSE_DROP:g}. "
            "Train with --precision fp32, or with another backbone"
        )
    kept = int8 if verdict.choice == "int8" else made
    return with_note(kept, context, f"{found}. {verdict.choice} is kept: {verdict.why}.")


def quantised(backbone: ExportedBackbone, crops: Sequence[Crop], progress: Progress) -> ExportedBackbone:
    """Return the backbone in int8, for CPUs like this one.

    Raises:
        ArtifactError: see `training.quantisation.quantise.quantise`.
    """
    progress("quantise", 0, 1)
    graph = quantise(backbone.model.SerializeToString(), crops, cpu=this_cpu())
    model = onnx.load_model_from_string(graph)
    progress("quantise", 1, 1)
    return replace(backbone, model=model, digest=backbone_digest(model), precision="int8")


def calibration_crops(files: Sequence[tuple[str, ImageFile]], spec: ImageSpec) -> list[Crop]:
    """Return the crops of the first readable pictures, enough to calibrate with.

    Args:
        files: hash and file of training images, by hash, which is as good as drawn by lot.
        spec: of the backbone.
    """
    return [crop for _, crop in islice(readable_crops(files, spec), CALIBRATION_CROPS)]


def _calibration_crops(made: Candidate) -> list[Crop]:
    files = [(sample.sha256, sample.path) for sample in samples_of(made.dataset, holdout=False)]
    return calibration_crops(files, made.backbone.spec)


def _on(backbone: ExportedBackbone, made: Candidate, context: Context) -> Candidate:
    """Finish the head on what another precision of the same backbone makes of the pictures."""
    if made.strategy == "probe":
        probed = probe_on(backbone, made.dataset, context)
        measured = probed.findings
        validation = made.findings.cross_validation if made.finetuning_record else measured.cross_validation
        findings = replace(made.findings, cross_validation=validation, extra=measured.extra)
        return replace(probed, findings=findings, finetuning_record=made.finetuning_record)
    dataset, features, _ = embed_dataset(made.dataset, backbone, context)
    tune = np.zeros(int((~features.is_holdout).sum()), np.bool_)
    tune[made.fitted.unseen.rows] = True
    head, temperature = made.fitted.head, np.float32(made.fitted.temperature)
    weight, bias = head.weight * temperature, head.bias * temperature
    fitted = calibrate_head(weight, bias, features, _held_back(weight, bias, features.train(), tune, context.settings))
    return replace(made, dataset=dataset, backbone=backbone, features=features, fitted=fitted)


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


def _answers(made: Candidate) -> FloatArray:
    """Return what is said of images that were not learned from; of a fine-tuned head by the very one in the file."""
    unseen = made.fitted.unseen
    if made.strategy == "probe":
        return unseen.probabilities
    return made.fitted.head.probabilities(made.features.train().embedding[unseen.rows])


def _objection(compared: PairedComparison | None, speed_up: float) -> str:
    """Say why ``auto`` does not take int8; empty where nothing is against it."""
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
    """Return the share that may be lost: so many points, and always one image."""
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
