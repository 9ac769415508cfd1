"""Export within a budget of accuracy, some layers left in float."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import onnx

from regraft.errors import TrainingError
from regraft.machine import cpu_budget
from regraft.model import artifact
from regraft.model.artifact import Artifact
from regraft.progress import Progress
from regraft.stores.images import ImageFile
from training.export.formats.catalogue import Format, open_file, size_mb, write
from training.export.formats.constant_head import with_constant_head
from training.export.formats.fp16 import to_fp16, with_fp16_weights
from training.export.result import Proof
from training.export.validation import ValidatedFile, Validation, prove
from training.quantisation.precision import calibration_crops
from training.quantisation.quantise import Cpu, quantise, this_cpu
from training.quantisation.sensitivity import errors_of_layers

_IN_FLOAT: Final = (1, 2, 4, 8, 16)
"""So many of the worst layers are left in float, one attempt after the other."""
_NAMED: Final = 5
_HALF_DROP: Final = 0.2
"""Percentage points, and always one image: where calculating in float16 costs more, only the weights are in float16."""


@dataclass(frozen=True)
class Source:
    """The version to export.

    Attributes:
        validation: its validation images.
        served: its file, run on them.
        calibration: hash and file of pictures that it was trained on, for fp16 and int8.
    """

    name: str
    version: int
    artifact: Artifact
    validation: Validation
    served: ValidatedFile
    calibration: Sequence[tuple[str, ImageFile]]


@dataclass(frozen=True)
class Attempt:
    """A file written, and its proof."""

    model: Path
    proof: Proof
    in_float: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def write_within_budget(
    source: Source, to: Format, folder: Path, cpu: Cpu | None, max_drop: float, progress: Progress
) -> Attempt:
    """Write a file that loses at most ``max_drop`` points.

    Raises:
        ArtifactError: the model cannot be converted.
        TrainingError: it loses more; the text says how much, and which layers of an int8 backbone hurt.
    """
    if to == "int8":
        assert cpu is not None, "int8 is for a CPU"
        return _int8(source, folder, cpu, max_drop, progress)
    backbone = artifact.ungraft(source.artifact.model)
    if to == "fp16":
        attempt = _fp16(source, backbone, folder, max_drop, progress)
    else:
        card = source.artifact.card
        model = with_constant_head(backbone, source.artifact.head, card, card.backbone.precision)
        attempt = _replace_file(source, to, model, folder, True, progress)
    if attempt.proof.points_lost > max_drop:
        raise TrainingError(
            f"--to {to} loses {attempt.proof.points_lost:.2f} points of accuracy on the {attempt.proof.images} "
            f"validation images, more than --max-drop {max_drop:g}. Nothing was written"
        )
    return attempt


def _fp16(source: Source, backbone: onnx.ModelProto, folder: Path, max_drop: float, progress: Progress) -> Attempt:
    """Calculate in float16, or keep only the weights in it."""
    head, card = source.artifact.head, source.artifact.card
    first = _replace_file(
        source, "fp16", with_constant_head(to_fp16(backbone), head, card, "fp16"), folder, True, progress
    )
    if first.proof.points_lost <= min(max_drop, max(_HALF_DROP, 100 / first.proof.images)) + 1e-9:
        note = "most CPUs calculate fp16 in float32, with a cast before and after each layer: it is for GPUs and NPUs"
        return Attempt(first.model, first.proof, (), (note,))
    rounded = with_fp16_weights(backbone, calibration_crops(source.calibration, card.image))
    second = _replace_file(source, "fp16", with_constant_head(rounded, head, card, "fp16"), folder, True, progress)
    note = (
        f"the weights are in float16 and the arithmetic is float32: calculating in float16 too loses "
        f"{first.proof.points_lost:.2f} points"
    )
    return Attempt(second.model, second.proof, (), (note,))


def _int8(source: Source, folder: Path, cpu: Cpu, max_drop: float, progress: Progress) -> Attempt:
    card, timed = source.artifact.card, cpu == this_cpu()
    backbone = artifact.ungraft(source.artifact.model).SerializeToString()
    crops = calibration_crops(source.calibration, card.image)

    def attempt(in_float: Sequence[str]) -> tuple[bytes, Attempt]:
        progress("quantise", 0, 1)
        graph = quantise(backbone, crops, cpu=cpu, in_float=in_float)
        progress("quantise", 1, 1)
        model = with_constant_head(onnx.load_model_from_string(graph), source.artifact.head, card, "int8")
        return graph, _replace_file(source, "int8", model, folder, timed, progress)

    graph, first = attempt(())
    if first.proof.points_lost <= max_drop:
        return first
    errors = errors_of_layers(backbone, graph, crops, progress)
    worst, tried = list(errors), [f"{first.proof.points_lost:.2f} points with every layer in int8"]
    for count in (count for count in _IN_FLOAT if count < len(worst)):
        _, later = attempt(worst[:count])
        if later.proof.points_lost <= max_drop:
            note = f"{count} layers are left in float, since int8 loses {', '.join(tried)}"
            return Attempt(later.model, later.proof, tuple(worst[:count]), (note,))
        tried.append(f"{later.proof.points_lost:.2f} with {count} in float")
    hurt = ", ".join(f"{name} ({error:.0%})" for name, error in list(errors.items())[:_NAMED])
    raise TrainingError(
        f"--to int8 loses {', '.join(tried)}, more than --max-drop {max_drop:g}, on the {first.proof.images} "
        f"validation images. The layers that hurt most, each with its own error as a share of the embedding's spread: "
        f"{hurt}. Nothing was written; try --to fp16, or train with another backbone"
    )


def _replace_file(
    source: Source, to: Format, model: onnx.ModelProto, folder: Path, timed: bool, progress: Progress
) -> Attempt:
    """Replace the file of the attempt before, and prove the new one."""
    for leftover in folder.iterdir():
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    path = write(to, model, source.artifact.card, folder)
    lanes = 1 if to == "openvino" else cpu_budget()  # its requests are not thread-safe
    exported = ValidatedFile.run_on(source.validation, open_file(to, path), size_mb(path), lanes, progress)
    takes: Literal["crop", "bytes"] = "bytes" if to == "mobile" else "crop"
    proof = prove(source.served, exported, source.validation, takes, timed=timed, progress=progress)
    return Attempt(path, proof)
